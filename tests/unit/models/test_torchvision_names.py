import pytest

from raypruning.models.torchvision_import import import_torchvision
from raypruning.models.torchvision_names import TORCHVISION_CLASSIFIERS, TORCHVISION_SEGMENTERS


@pytest.mark.parametrize(("names", "module"), [(TORCHVISION_CLASSIFIERS, ""), (TORCHVISION_SEGMENTERS, "segmentation")])
def test_list_is_that_of_the_torchvision_installed(names, module):
    models = import_torchvision().models
    assert list(names) == sorted(models.list_models(module=getattr(models, module, models)))
