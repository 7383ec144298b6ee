import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import mesh as mesh_lib


@pytest.fixture(scope='module')
def mesh():
  return mesh_lib.make_mesh(2)


def test_all_devices_are_used_by_default():
  mesh = mesh_lib.make_mesh(None)
  assert mesh.shape == {'data': len(jax.devices())}
  assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize('num_devices', [0, -1, 5])
def test_a_number_of_devices_that_is_not_there_is_an_error(num_devices):
  message = f'num_devices from 1 to 4, .* got {num_devices}'
  with pytest.raises(ValueError, match=message):
    mesh_lib.make_mesh(num_devices)


def test_a_batch_that_does_not_divide_evenly_is_an_error(mesh):
  mesh_lib.check_batch_size(12, mesh, 3)
  with pytest.raises(ValueError, match=r'multiple of 6 .* got 14'):
    mesh_lib.check_batch_size(14, mesh, 3)


@pytest.mark.parametrize('function', ['to_devices', 'from_shares'])
def test_one_process_puts_whole_arrays_on_its_devices(mesh, function):
  x = np.arange(12).reshape(3, 4)
  sharding = mesh_lib.over_data(mesh, axis=1)
  placed = getattr(mesh_lib, function)({'x': x}, sharding)['x']
  assert placed.sharding == sharding
  shards = [np.asarray(shard.data) for shard in placed.addressable_shards]
  np.testing.assert_array_equal(shards[0], x[:, :2])
  np.testing.assert_array_equal(shards[1], x[:, 2:])


def test_gradients_over_a_divided_batch_are_those_of_the_whole(mesh):
  w = jnp.array([1.0, -2.0])
  x = jnp.arange(8.0).reshape(4, 2)
  gradient = jax.grad(lambda w, x: jnp.mean((x @ w) ** 2))
  divided = jax.jit(gradient)(
    jax.device_put(w, mesh_lib.replicated(mesh)),
    jax.device_put(x, mesh_lib.over_data(mesh)),
  )
  np.testing.assert_allclose(divided, gradient(w, x), rtol=1e-6)


def test_shapes_get_a_sharding(mesh):
  replicated = mesh_lib.replicated(mesh)
  shapes = mesh_lib.with_sharding({'x': jnp.ones((2, 3))}, replicated)
  assert shapes['x'].shape == (2, 3)
  assert shapes['x'].dtype == jnp.float32
  assert shapes['x'].sharding == replicated
