import torch
from torch import nn

from raypruning.models.heads import all_logits, logit_layers
from raypruning.models.torchvision_segmenters import build


def test_a_network_of_one_head_answers_with_its_last_layer():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), nn.Softmax(1))
    images = torch.randn(2, 4)
    assert logit_layers(model) == ("2",)
    (logits,) = all_logits(model, images)
    assert torch.equal(logits, model(images))


def test_an_auxiliary_head_answers_behind_the_main_one_out_of_training_too():
    model = build("deeplabv3_mobilenet_v3_large", num_classes=3, in_channels=3, image_size=33, options={}).eval()
    images_NCHW = torch.randn(1, 3, 33, 33)
    main, auxiliary = all_logits(model, images_NCHW)
    assert torch.equal(main, model(images_NCHW))
    assert main.shape == auxiliary.shape
    assert not torch.equal(main, auxiliary)
