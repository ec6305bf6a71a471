"""What a process needs to know, read once at its start.

Options win over DATARUN_* variables, those over the connection.json of the folder.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, SkipValidation, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from datarun.errors import DatarunError
from datarun.log.brokers import Brokers, Security
from datarun.readmodel.orphans import PATIENCE_SECONDS
from datarun.signatures import Signatures
from datarun.signing_keys import load_keys
from datarun.topics import DEFAULT_PREFIX, Catalogue

DEFAULT_DIR = Path(".datarun")


class _Environment(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DATARUN_", extra="ignore")
    kafka: str | None = None
    postgres_url: str | None = None
    postgres_url_file: Path | None = None
    blobs: str | None = None
    topic_prefix: str | None = None
    max_blob_mib: int | None = None
    show_test_scores: bool | None = None
    orphan_seconds: float | None = None
    gateway_url: str | None = None
    token_file: Path | None = None
    signing_keys: Path | None = None
    signing_as: str | None = None
    log_level: str | None = None


class KafkaSecurity(BaseSettings):
    """How brokers are to be talked to: DATARUN_KAFKA_* variables, and files with the secrets."""

    model_config = SettingsConfigDict(env_prefix="DATARUN_KAFKA_", extra="ignore", frozen=True)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    sasl_username: str = ""
    sasl_password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password_file: Path | None = None

    def read(self) -> Security:
        """Return what it comes to; raises DatarunError for a file that cannot be read."""
        return Security(
            protocol=self.security_protocol,
            mechanism=self.sasl_mechanism,
            username=self.sasl_username,
            password=read_secret(self.sasl_password_file, "password file") if self.sasl_password_file else "",
            ca_file=self.ca_file,
            certificate_file=self.certificate_file,
            key_file=self.key_file,
            key_password=read_secret(self.key_password_file, "password file") if self.key_password_file else "",
        )


Networks = tuple[IPv4Network | IPv6Network, ...]


def _listed(given: Any) -> Any:
    return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


class WebhookSettings(BaseSettings):
    """Where webhooks may go and how often they are tried: DATARUN_WEBHOOK_* variables."""

    model_config = SettingsConfigDict(env_prefix="DATARUN_WEBHOOK_", extra="ignore", frozen=True)
    networks: Annotated[Networks, NoDecode, BeforeValidator(_listed)] = ()
    """Networks that are not public and that webhooks may reach all the same."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    retry_seconds: Annotated[float, Field(gt=0)] = 5.0
    """The pause after a first failure; each one after is twice as long."""
    longest_retry_seconds: Annotated[float, Field(gt=0)] = 3600.0
    give_up_seconds: Annotated[float, Field(gt=0)] = 259_200.0
    """Three days; a webhook that took nothing for so long is disabled."""


class Settings(BaseModel):
    """The servers one installation is made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    directory: Path = DEFAULT_DIR
    kafka: str
    kafka_security: Security = Security()
    postgres_url: str | None = None
    blobs_url: str | None = Field(default=None, validation_alias="blobs")
    topic_prefix: str = Field(default=DEFAULT_PREFIX, max_length=60)
    max_blob_mib: int = Field(default=2048, ge=1)
    show_test_scores: bool = False
    """Whether participants see their scores on the hidden labels."""
    orphan_seconds: float = Field(default=PATIENCE_SECONDS, ge=0, allow_inf_nan=False)
    """How long a run may be without the request it came from before it is a dead letter."""
    gateway_url: str | None = None
    token: SecretStr | None = None
    log_level: str = "info"
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    signatures: SkipValidation[Signatures | None] = None
    """The keys that prove who wrote an event, if there are any."""

    @property
    def brokers(self) -> Brokers:
        """Kafka, and how one talks to it."""
        return Brokers(self.kafka, self.kafka_security)

    @property
    def catalogue(self) -> Catalogue:
        """The topics of this installation."""
        return Catalogue(self.topic_prefix, self.signatures)

    @property
    def postgres(self) -> str:
        """The database's URL; raises DatarunError for a process that was given none."""
        if self.postgres_url is None:
            raise DatarunError("no Postgres given: pass --postgres URL, or --dir of a running `datarun up`")
        return self.postgres_url

    @property
    def blobs(self) -> str:
        """The blob store's URL; raises DatarunError for a process that was given none."""
        if self.blobs_url is None:
            raise DatarunError("no blobs given: pass --blobs URL, or --dir of a running `datarun up`")
        return self.blobs_url


def load_settings(directory: Path = DEFAULT_DIR, **options: Any) -> Settings:
    """Return the settings; an option that is None was not given. Raises DatarunError that says what is missing."""
    from_folder = _connection(directory)
    from_environment = _from_environment()
    given = {name: value for name, value in options.items() if value is not None}
    merged = from_folder | from_environment | given
    if "kafka" not in merged:
        raise DatarunError("no kafka given: start `datarun up` in this folder, name its --dir, or pass --kafka")
    token_file = merged.pop("token_file", None)
    if token_file is not None:
        merged["token"] = read_secret(token_file, "token file")
    signing_keys, signing_as = merged.pop("signing_keys", None), merged.pop("signing_as", None)
    if signing_keys is not None:
        merged["signatures"] = load_keys(signing_keys, signs_as=signing_as)
    merged.setdefault("kafka_security", kafka_security())
    merged.setdefault("webhooks", webhook_settings())
    return Settings(directory=directory, **merged)


def kafka_security() -> Security:
    """Return how the environment says that brokers are talked to; raises DatarunError."""
    try:
        return KafkaSecurity().read()
    except ValidationError as error:
        raise _wrong("DATARUN_KAFKA_", error) from error


def webhook_settings() -> WebhookSettings:
    """Return what the environment says of webhooks; raises DatarunError."""
    try:
        return WebhookSettings()
    except ValidationError as error:
        raise _wrong("DATARUN_WEBHOOK_", error) from error


def _wrong(prefix: str, error: ValidationError) -> DatarunError:
    first = error.errors(include_url=False)[0]
    return DatarunError(f"{prefix}{str(first['loc'][0]).upper()}: {first['msg']}")


def database_url(directory: Path, given: str | None) -> str:
    """Return the database's URL: the one given, the environment's, or that of the folder; raises DatarunError."""
    found = given or _from_environment().get("postgres_url") or _connection(directory).get("postgres_url")
    if not found:
        raise DatarunError("no Postgres given: pass --postgres URL, or --dir of a running `datarun up`")
    return str(found)


def _from_environment() -> dict[str, Any]:
    found = _Environment().model_dump(exclude_none=True)
    url_file = found.pop("postgres_url_file", None)
    if url_file is not None:
        found.setdefault("postgres_url", read_secret(url_file, "URL file"))
    return found


def _connection(directory: Path) -> dict[str, str]:
    from datarun.stack.connection import FILE_NAME, Connection  # noqa: PLC0415

    if not (directory / FILE_NAME).is_file():
        return {}
    connection = Connection.load(directory)
    found = {"kafka": connection.kafka, "postgres_url": connection.postgres_url, "blobs": connection.blobs}
    if connection.runner_token:
        found |= {"gateway_url": connection.gateway_url, "token": connection.runner_token}
    return found


def read_secret(path: Path, what: str) -> str:
    """Return what a file holds, without the white space around it; raises DatarunError."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DatarunError(f"the {what} {path} cannot be read: {error}") from error
