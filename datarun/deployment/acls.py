"""Kafka's access rules for each role, from what the catalogue says of writers and readers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from datarun.topics import QUEUES, TOPICS, Catalogue

ROLES = ("gateway", "projector", "runner", "verifier", "producer", "operator")
"""Who has a name of its own at the brokers: the services, clients that write themselves, and people."""
_PROCESS_OF = {"reaper": "projector", "people": "operator"}
"""The reaper is a thread of the projector; people work with the command line."""
READERS_GROUP = "datarun-reader"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a role may do with a topic or a group; a name that ends with * stands for all that begin so."""

    role: str
    operations: tuple[str, ...]
    resource: str
    name: str

    def command(self, brokers: str, principal: str) -> str:
        """Return the line that makes it so."""
        pattern = " --resource-pattern-type prefixed" if self.name.endswith("*") else ""
        operations = " ".join(f"--operation {operation}" for operation in self.operations)
        name = self.name.removesuffix("*")
        return (
            f"kafka-acls.sh --bootstrap-server {brokers} --command-config admin.properties --add"
            f" --allow-principal {principal} {operations} --{self.resource} '{name}'{pattern}"
        )


def rules(catalogue: Catalogue) -> Iterator[Rule]:
    """Yield every rule, role by role; whatever is not said is not allowed."""
    everything = f"{catalogue.prefix}*"
    for role in ROLES:
        # Each service compares its topics with the catalogue when it starts.
        yield Rule(role, ("Describe", "DescribeConfigs"), "topic", everything)
        for topic in TOPICS:
            may = [name for name, who in (("Write", topic.writers), ("Read", topic.readers)) if role in _roles(who)]
            if may:
                yield Rule(role, tuple(may), "topic", catalogue.full_name(topic))
        yield Rule(role, ("Read",), "group", READERS_GROUP)
    yield Rule("projector", ("Read",), "group", f"{catalogue.prefix}projector.*")
    for topic in QUEUES.values():
        yield Rule("runner", ("Read", "Describe"), "group", catalogue.share_group(topic))
    yield Rule("operator", ("Create", "Alter", "AlterConfigs", "Read", "Write"), "topic", everything)
    yield Rule("operator", ("Describe", "DescribeConfigs", "AlterConfigs"), "group", everything)


def _roles(names: tuple[str, ...]) -> set[str]:
    return {_PROCESS_OF.get(name, name) for name in names}
