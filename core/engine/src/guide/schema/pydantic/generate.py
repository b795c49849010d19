"""Writes what pydantic makes of types that people annotate with."""
import json, sys
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address, IPv4Network, IPv4Interface
from pathlib import Path
from typing import Annotated, Any, Dict, FrozenSet, List, Literal, NamedTuple, Optional, Set, Tuple, TypedDict, Union
from uuid import UUID
from pydantic import *
from pydantic import UUID4

class Color(Enum):
    red = "red"; blue = "blue"
class Level(IntEnum):
    low = 1; high = 2
class Cat(BaseModel):
    kind: Literal["cat"]; lives: int = 9
class Dog(BaseModel):
    kind: Literal["dog"] = "dog"; barks: bool
class Node(BaseModel):
    value: int; children: List["Node"] = []
class Tree(BaseModel):
    left: Optional["Tree"] = None; right: Optional["Tree"] = None
class Point(NamedTuple):
    x: int; y: float
class Movie(TypedDict, total=False):
    name: str; year: int
class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", title="S")
    name: Annotated[str, Field(min_length=1, max_length=10, pattern="^[a-z]+$", description="n", examples=["a"])]
    age: Annotated[int, Field(ge=0, lt=150)]
    price: Annotated[float, Field(gt=0, le=9.99, multiple_of=0.01)]
class Base(BaseModel):
    id: int
class Child(Base):
    model_config = ConfigDict(extra="allow")
    items: List[Strict] = Field(min_length=1, max_length=2)
class Everything(BaseModel):
    a: int; b: float; c: str; d: bool; e: None; f: Any; g: Optional[int] = None
    h: Union[int, str]; i: List[int]; j: Dict[str, int]; k: Tuple[int, str]; l: Literal["x", 3, None]
T = [int, float, str, bool, None, Any, object, list, dict, bytes, date, datetime, time, timedelta, Decimal, UUID, UUID4, Path, FilePath, DirectoryPath, Color, Level,
  IPv4Address, IPv6Address, IPv4Network, IPv4Interface, IPvAnyAddress, AnyUrl, HttpUrl, FileUrl, PostgresDsn, RedisDsn, SecretStr, SecretBytes, Base64Str, Base64Bytes, Base64UrlStr, Json, Json[List[int]],
  PositiveInt, NegativeFloat, NonNegativeInt, NonPositiveFloat, StrictInt, StrictBool, FiniteFloat, ByteSize, PastDate, FutureDatetime, AwareDatetime, NaiveDatetime,
  conint(ge=3, lt=10, multiple_of=2), confloat(gt=0.5, allow_inf_nan=False), constr(pattern=r"^\d{3}-\d{4}$"), constr(strip_whitespace=True, to_lower=True, max_length=3), conlist(int, min_length=2, max_length=3), condecimal(max_digits=5, decimal_places=2), condate(gt=date(2020,1,1)),
  Optional[str], Union[int, None, str], Union[Cat, Dog], Annotated[Union[Cat, Dog], Field(discriminator="kind")], List[Annotated[Union[Cat, Dog], Field(discriminator="kind")]],
  Literal["a"], Literal["a", "b", 1, True, None], Tuple[int, str], Tuple[int, ...], Tuple[()], List[List[int]], Dict[str, int], Dict[int, str], Dict[Literal["a","b"], int], Dict[UUID, float], Dict[Color, bool], Dict[constr(pattern="^x"), int], Dict[str, Any],
  Set[Color], FrozenSet[Literal[1,2,3]], Set[bool], Annotated[Set[Level], Field(min_length=1, max_length=1)], Set[str], Set[int],
  Point, Movie, Node, Tree, Strict, Child, Everything, Cat, Dog, RootModel[List[int]], RootModel[Dict[str, Cat]]]
out = []
for t in T:
    try: s = TypeAdapter(t).json_schema()
    except Exception as e: print("skip", t, str(e)[:80], file=sys.stderr); continue
    out.append({"type": str(t).replace("__main__.", "").replace("typing.", "")[:80], "schema": s})
json.dump(out, open("schemas.json", "w"), indent=0, ensure_ascii=False)
print(len(out))
