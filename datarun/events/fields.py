"""The types of events' fields: what each says is checked of every record."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
"""Lower-case hexadecimal sha256 of the bytes."""
Id = Annotated[int, Field(strict=True, ge=1, le=2_147_483_647)]
"""A positive 32-bit integer; folds and submissions are numbered by the client, datasets by us."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Mebibytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=9_223_372_036_854_775_807)]
Dimension = Annotated[int, Field(strict=True, ge=0, le=2_147_483_647)]
"""One number of an array's shape."""
Delivery = Annotated[int, Field(strict=True, ge=1, le=32_767)]
"""How often the platform has handed out an attempt; it gives up long before the bound."""
Ordinal = Annotated[int, Field(strict=True, ge=1, le=2_147_483_647)]
Seed = Annotated[int, Field(strict=True, ge=0, le=4_294_967_295)]
"""What numpy's random state is made of."""
Share = Annotated[float, Field(gt=0, lt=1)]
SandboxLevel = Annotated[int, Field(ge=0, le=4)]
Text = Annotated[str, StringConstraints(max_length=200)]
Log = Annotated[str, StringConstraints(max_length=400_000)]

EnvironmentName = Annotated[str, StringConstraints(pattern=r"\A(default|[1-9][0-9]{0,9})\z")]
"""`default`, which every fold has, or the id of the dataset whose folds have more."""
