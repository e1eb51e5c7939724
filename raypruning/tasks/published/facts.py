"""What the publishers of shifted test sets say of them: names of folders and files, how many there are, md5 sums.

A sum is given where two independent sources, or the publisher's own page, state it; the others are checked by their
number of images alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from raypruning.corruptions.parameters import FAMILIES


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The file in which a set is published.

    Attributes:
        md5: hexadecimal; "" where none is published.
        into: folder below the data folder that it is to be unpacked in, "" for the data folder itself.
        unpack: the command that unpacks it, with its options.
    """

    name: str
    md5: str = ""
    into: str = ""
    unpack: str = "tar -xf {archive} -C {folder}"

    def __str__(self) -> str:
        return f"{self.name}, md5 {self.md5}" if self.md5 else self.name


@dataclass(frozen=True, kw_only=True)
class CifarC:
    """A set of arrays, one file a corruption, and the labels of all.

    Attributes:
        name: what results call it.
        folder: where it is, below the data folder.
    """

    name: str
    folder: str
    archive: Archive


@dataclass(frozen=True, kw_only=True)
class LabelledArrays:
    """A set of one array of images and one of labels.

    Attributes:
        md5: of the two files; empty where none is published.
    """

    data: str
    labels: str
    num_images: int
    md5: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClassFolders:
    """A set of pictures, one folder a class.

    Attributes:
        task: the name of the task.
        folders: where it may be, below the data folder.
        named_by: whether a folder has a class's name, or its position among the 1000 sorted names.
    """

    task: str
    folders: tuple[str, ...]
    num_images: int
    num_classes: int
    archive: Archive
    named_by: Literal["name", "position"] = "name"


@dataclass(frozen=True, kw_only=True)
class ObjectNet:
    """ObjectNet's pictures, one folder an object class, and the files that map these to ImageNet's.

    Attributes:
        num_images: of all folders.
        num_mapped: folders whose class is also one of ImageNet's.
    """

    folder: str
    num_images: int
    num_folders: int
    num_mapped: int
    archive: Archive


# Zenodo, records 2535967 and 3555552.
CIFAR10_C = CifarC(
    name="cifar10-c",
    folder="CIFAR-10-C",
    archive=Archive(name="CIFAR-10-C.tar", md5="56bf5dcef84df0e2308c6dcbcbbd8499"),
)
CIFAR100_C = CifarC(
    name="cifar100-c",
    folder="CIFAR-100-C",
    archive=Archive(name="CIFAR-100-C.tar", md5="11f0ed0f1191edbf9fa23466ae6021d3"),
)

# github.com/modestyachts/CIFAR-10.1, datasets/ and README. Its first release had cifar10.1-data.npy (2000 images) and
# cifar10.1-v0-data.npy (2021). The sum of the former is not that of v6, so neither is taken for a later file.
CIFAR10_1_V6 = LabelledArrays(
    data="cifar10.1_v6_data.npy",
    labels="cifar10.1_v6_labels.npy",
    num_images=2000,
    md5=MappingProxyType(
        {
            "cifar10.1_v6_data.npy": "4fcae82cb1326aec9ed1dc1fc62345b8",
            "cifar10.1_v6_labels.npy": "09a97fb7c430502fcbd69d95093a3f85",
        }
    ),
)
CIFAR10_1_V4 = LabelledArrays(data="cifar10.1_v4_data.npy", labels="cifar10.1_v4_labels.npy", num_images=2021)
CIFAR10_1_FOLDERS = ("", "CIFAR-10.1", "CIFAR-10.1/datasets")

# Zenodo, record 2235448: one archive a family of corruptions, and in it one folder a corruption.
IMAGENET_C_FOLDERS = ("ImageNet-C", "imagenet-c")
_IMAGENET_C_MD5 = {
    "noise": "e80562d7f6c3f8834afb1ecf27252745",
    "blur": "2d8e81fdd8e07fef67b9334fa635e45c",
    "weather": "33ffea4db4d93fe4a428c40a6ce0c25d",
    "digital": "89157860d7b10d5797849337ca2e5c03",
    "extra": "d492dfba5fc162d8ec2c3cd8ee672984",
}
IMAGENET_C_FAMILY = MappingProxyType({name: family for family, names in FAMILIES.items() for name in names})
IMAGENET_C_ARCHIVES = MappingProxyType(
    {family: Archive(name=f"{family}.tar", md5=_IMAGENET_C_MD5[family], into="ImageNet-C") for family in FAMILIES}
)

IMAGENET_A = ClassFolders(
    task="shift/imagenet_a",
    folders=("imagenet-a",),
    num_images=7500,
    num_classes=200,
    archive=Archive(name="imagenet-a.tar", md5="c3e55429088dc681f30d81f4726b6595"),
)
IMAGENET_R = ClassFolders(
    task="shift/imagenet_r",
    folders=("imagenet-r",),
    num_images=30_000,
    num_classes=200,
    archive=Archive(name="imagenet-r.tar", md5="a61312130a589d0ca1a8fca1f2bd3337"),
)
IMAGENET_SKETCH = ClassFolders(
    task="shift/imagenet_sketch",
    folders=("sketch", "imagenet-sketch"),
    num_images=50_889,
    num_classes=1000,
    archive=Archive(name="ImageNet-Sketch.zip", unpack="unzip {archive} -d {folder}"),
)


def _imagenet_v2(variant: str, published: str) -> ClassFolders:
    return ClassFolders(
        task=f"shift/imagenet_v2/{variant}",
        folders=(f"imagenetv2-{published}-format-val", f"imagenetv2-{published}"),
        num_images=10_000,
        num_classes=1000,
        archive=Archive(name=f"imagenetv2-{published}.tar.gz"),
        named_by="position",
    )


IMAGENET_V2 = MappingProxyType(
    {
        "matched-frequency": _imagenet_v2("matched-frequency", "matched-frequency"),
        "threshold-0.7": _imagenet_v2("threshold-0.7", "threshold0.7"),
        "top-images": _imagenet_v2("top-images", "top-images"),
    }
)

# The password is printed on the page that the archive is downloaded from, objectnet.dev/download.html.
OBJECTNET = ObjectNet(
    folder="objectnet-1.0",
    num_images=50_273,
    num_folders=313,
    num_mapped=113,
    archive=Archive(name="objectnet-1.0.zip", unpack="unzip -P objectnetisatestset {archive} -d {folder}"),
)
