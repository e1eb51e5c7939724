from raypruning.models.torchvision_import import import_torchvision
from raypruning.models.torchvision_names import TORCHVISION_CLASSIFIERS


def test_list_is_that_of_the_torchvision_installed():
    models = import_torchvision().models
    assert list(TORCHVISION_CLASSIFIERS) == sorted(models.list_models(module=models))
