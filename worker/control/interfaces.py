"""What the control of a server needs of it: protocols, without behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ..config import ServerConfig
    from ..interfaces import ServingPool


class Observed(Protocol):
    """What a report reads of a `Server`. Any thread may call."""

    pools: list[ServingPool]

    def served(self) -> int: ...

    @property
    def state(self) -> str: ...


class Controlled(Observed, Protocol):
    """What a client may have done to a `Server`. Any thread may call."""

    config: ServerConfig

    @property
    def urls(self) -> list[str]: ...

    @property
    def listeners(self) -> Sequence[socket.socket]: ...

    def reload_certificates(self) -> bool: ...

    def reopen_logs(self) -> None: ...

    def begin_stop(self) -> None: ...


class ObservedServer(Controlled, Protocol):
    """What the observers of a `Server` need of it. Any thread may call."""

    def unready_reason(self) -> str: ...

    def give_up(self) -> None: ...
