"""PackNet and EfficientPackNet: many tasks in one network without forgetting.

A weight belongs to the first task whose mask includes it, and never changes
again. A task predicts with the weights in its mask, its own and those of
earlier tasks; later tasks train the rest. The two methods differ in the choice
of the mask: `fixed_share` or `search`.

    state = packnet.init(params, num_tasks=10, is_head=matching('logits/'))
    tx = packnet.freeze(powerprop.powerprop(optax.adam(1e-3), alpha))
    for task in tasks:
      params = packnet.start_task(params, state, from_weights(fresh(), alpha))
      opt_state = packnet.with_sets(
        tx.init(params), packnet.training_sets(params, state))
      params, opt_state = train(params, opt_state, task)
      found = packnet.search(
        evaluate, params, state, densities=(0.5, 0.2, 0.1, 0.05), gamma=0.99)
      state = packnet.claim(params, state, found.masks)
    weights = to_weights(packnet.task_params(params, state, 3), alpha)

PackNet retrains after `claim` on `retraining_sets`, then calls `store_copies`.
In training and retraining the network uses
`sparsity.forward_weights(params, opt_state)`.

References:
  Mallya and Lazebnik, 2018, "PackNet: Adding multiple tasks to a single network
  by iterative pruning". https://arxiv.org/abs/1711.05769
  Schwarz et al., 2021, "Powerpropagation: A sparsity inducing weight
  reparameterisation". https://arxiv.org/abs/2110.00296
"""

from powerprop.packnet.choice import Search as Search
from powerprop.packnet.choice import check_search as check_search
from powerprop.packnet.choice import fixed_share as fixed_share
from powerprop.packnet.choice import search as search
from powerprop.packnet.freezing import check_capacity as check_capacity
from powerprop.packnet.freezing import freeze as freeze
from powerprop.packnet.freezing import retraining_sets as retraining_sets
from powerprop.packnet.freezing import start_task as start_task
from powerprop.packnet.freezing import training_sets as training_sets
from powerprop.packnet.freezing import with_sets as with_sets
from powerprop.packnet.ownership import PackState as PackState
from powerprop.packnet.ownership import Usage as Usage
from powerprop.packnet.ownership import claim as claim
from powerprop.packnet.ownership import init as init
from powerprop.packnet.ownership import num_free as num_free
from powerprop.packnet.ownership import store_copies as store_copies
from powerprop.packnet.ownership import task_masks as task_masks
from powerprop.packnet.ownership import task_params as task_params
from powerprop.packnet.ownership import usage as usage
