"""Where STS is: the one table that says which hosts are ever asked. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REGIONS", "Region"]


class Region(NamedTuple):
    """A region of AWS."""

    name: str
    partition: str
    """Which AWS it belongs to; identities of one are unknown in the others."""
    host: str
    """Its own endpoint of STS."""


_SUFFIXES = {"aws": "amazonaws.com", "aws-cn": "amazonaws.com.cn", "aws-us-gov": "amazonaws.com"}
_NAMES = {
    "aws": """
        af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2
        ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7
        ca-central-1 ca-west-1 eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3
        il-central-1 me-central-1 me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2
    """,
    "aws-cn": "cn-north-1 cn-northwest-1",
    "aws-us-gov": "us-gov-east-1 us-gov-west-1",
}

REGIONS: Mapping[str, Region] = MappingProxyType(
    {
        name: Region(name, partition, f"sts.{name}.{_SUFFIXES[partition]}")
        for partition, names in _NAMES.items()
        for name in names.split()
    }
)
"""Every region a proof may name, of the three public partitions (as botocore 1.44 lists them)."""
