import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from raypruning.errors import SpecError
from raypruning.models import pretrained
from raypruning.models.torchvision_classifiers import build


def make(name="shufflenet_v2_x0_5", *, num_classes=7, in_channels=3, **options):
    return build(name, num_classes=num_classes, in_channels=in_channels, image_size=32, options=options)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(11)
    return make()


@pytest.fixture(params=[".safetensors", ".pt", ".pth"])
def path(request, trained, tmp_path):
    path = tmp_path / f"weights{request.param}"
    save_file(trained.state_dict(), path) if request.param == ".safetensors" else torch.save(trained.state_dict(), path)
    return path


def test_weights_come_from_the_file(path, trained):
    state = make(weights=str(path)).state_dict()
    assert all(torch.equal(state[key], value) for key, value in trained.state_dict().items())


def test_a_head_of_other_classes_stays_random_and_the_rest_is_loaded(path, trained):
    state = make(num_classes=5, weights=str(path)).state_dict()
    assert state["fc.weight"].shape == (5, 1024)
    assert all(torch.equal(state[k], v) for k, v in trained.state_dict().items() if not k.startswith("fc."))


def test_a_shape_that_differs_outside_the_head_is_refused(path):
    with pytest.raises(
        SpecError, match=r"1 of another shape \(such as conv1.0.weight \(24, 3, 3, 3\) for \(24, 1, 3, 3"
    ):
        make(in_channels=1, weights=str(path))


def test_weights_of_another_network_are_refused_with_what_is_missing_and_too_much(path):
    with pytest.raises(SpecError, match=r"do not fit the model: \d+ missing \(such as .*\), \d+ unexpected \(such as"):
        make("resnet18", weights=str(path))


def test_versions_of_layers_survive_a_format_without_them(tmp_path):
    torch.manual_seed(1)
    model = make("mnasnet0_5")  # refuses a state dict without its version
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    state = make("mnasnet0_5", weights=str(tmp_path / "weights.safetensors")).state_dict()
    assert torch.equal(state["classifier.1.weight"], model.state_dict()["classifier.1.weight"])


def test_missing_weights_are_refused_with_their_path(tmp_path):
    with pytest.raises(SpecError, match=r"no weights at .*gone\.safetensors"):
        make(weights=str(tmp_path / "gone.safetensors"))


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth"])
def test_a_damaged_file_is_refused(tmp_path, ending):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(b"not weights at all")
    with pytest.raises(SpecError, match="cannot be read: "):
        make(weights=str(path))


def test_an_unknown_ending_is_refused(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"x")
    with pytest.raises(SpecError, match=r"must be \.safetensors, \.pt or \.pth"):
        make(weights=str(path))


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save([torch.zeros(1)], tmp_path / "weights.pt")
    with pytest.raises(SpecError, match="holds no state dict"):
        make(weights=str(tmp_path / "weights.pt"))


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path):
    class Touches:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    torch.save({"fc.weight": Touches()}, tmp_path / "weights.pt")
    with pytest.raises(SpecError, match="cannot be read"):
        make(weights=str(tmp_path / "weights.pt"))
    assert not (tmp_path / "touched").exists()


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "MAX_BYTES", 2**20)
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**21))
    assert path.stat().st_size < 2**20
    with pytest.raises(SpecError, match="larger than"):
        make(weights=str(path))


class TestCache:
    @pytest.fixture(autouse=True)
    def hub(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        return tmp_path / "hub" / "checkpoints"

    def test_weights_that_are_not_there_are_refused_with_their_place_and_not_fetched(self, hub):
        with pytest.raises(SpecError, match=r"there is no .*checkpoints.resnet18-\w+\.pth; put https://"):
            make("resnet18", weights="cache")
        assert not list(hub.iterdir())

    def test_weights_that_are_there_are_loaded_but_for_the_head(self, hub):
        published = make("resnet18", num_classes=1000).state_dict()
        torch.save(published, hub / "resnet18-f37072fd.pth")
        state = make("resnet18", weights="cache").state_dict()
        assert torch.equal(state["layer4.1.conv2.weight"], published["layer4.1.conv2.weight"])
        assert state["fc.weight"].shape == (7, 512)

    def test_old_names_in_densenet_files_are_understood(self, hub):
        published = make("densenet121", num_classes=1000).state_dict()
        old = {}
        for key, value in published.items():
            for part in ("norm", "conv"):
                for number in "12":
                    if "denselayer" in key:
                        key = key.replace(f".{part}{number}.", f".{part}.{number}.")
            if not key.endswith("num_batches_tracked"):
                old[key] = value
        torch.save(old, hub / "densenet121-a639ec97.pth")
        state = make("densenet121", weights="cache").state_dict()
        key = "features.denseblock4.denselayer16.conv2.weight"
        assert torch.equal(state[key], published[key])

    def test_googlenet_drops_auxiliary_heads_and_takes_imagenet_normalised_images(self, hub):
        published = make("googlenet", num_classes=1000).state_dict()
        published["aux1.fc1.weight"] = torch.zeros(2, 2)
        torch.save(published, hub / "googlenet-1378be20.pth")
        assert make("googlenet", weights="cache").transform_input
        assert not make("googlenet").transform_input
