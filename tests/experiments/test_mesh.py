import numpy as np
import pytest

from experiments import mesh as mesh_lib


@pytest.fixture(scope='module')
def mesh():
  return mesh_lib.make_mesh(2)


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
