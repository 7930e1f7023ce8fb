"""The live screen of `threadwell top`. Needs textual, which the extra `top` installs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from .control_client import ControlError
from .control_text import stacks_text
from .top_view import REQUEST_TITLES, WORKER_TITLES, View, Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_STATE_COLUMN = 1
# Colours of states of processes and requests; those that are well have none.
_STYLES = {"running": "yellow", "draining": "yellow", "starting": "cyan", "streaming": "green"}


class TopScreen(App[None]):
    """Shows what `watcher` sees, every `interval` seconds."""

    TITLE = "threadwell top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #title { background: $primary; color: $text; padding: 0 1; width: 100%; }
    #facts { padding: 0 1; height: auto; }
    #error { color: $text; background: $error; padding: 0 1; display: none; }
    #workers { height: auto; max-height: 40%; margin: 1 0 0 0; }
    #requests { height: 1fr; margin: 1 0 0 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stack", "Stack"),
        Binding("r", "recycle", "Recycle the process"),
        Binding("l", "reload", "Reload"),
        Binding("o", "other_list", "Other list"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, watcher: Watcher, interval: float) -> None:
        super().__init__()
        self._watcher = watcher
        self._interval = interval
        # The watcher is used by one thread at a time.
        self._lock = threading.Lock()

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="error", markup=False)
        yield Static(id="facts", markup=False)
        for name, titles in (("workers", WORKER_TITLES), ("requests", REQUEST_TITLES)):
            shown: DataTable[Text] = DataTable(id=name, cursor_type="row", zebra_stripes=True)
            shown.add_columns(*titles)
            yield shown
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#requests").focus()
        self.look()
        self.set_interval(self._interval, self.look)

    # ---- Looking --------------------------------------------------------------------------

    def look(self) -> None:
        """Ask the server on a thread of its own: it may take its time."""
        self.run_worker(self._look, thread=True, exclusive=True, group="look")

    def _look(self) -> None:
        if not self._lock.acquire(blocking=False):  # The last look is not done.
            return
        try:
            view = self._watcher.look()
        finally:
            self._lock.release()
        self.call_from_thread(self.show, view)

    def show(self, view: View) -> None:
        """Show `view`; the lists keep their cursors."""
        error = self.query_one("#error", Static)
        error.display = bool(view.error)
        if view.error:
            error.update(view.error)
            return
        self.query_one("#title", Static).update(view.title)
        width = max(len(name) for name, _ in view.facts)
        facts = Text()
        for name, value in view.facts:
            facts.append(name.ljust(width) + "  ", "bold")
            facts.append(value + "\n")
        facts.right_crop(1)
        self.query_one("#facts", Static).update(facts)
        _fill(self.query_one("#workers", DataTable), view.workers, 0)
        _fill(self.query_one("#requests", DataTable), view.requests, len(REQUEST_TITLES) - 1)

    # ---- Keys -----------------------------------------------------------------------------

    def _selected(self, name: str, column: int) -> str:
        """A cell of the row with the cursor; empty without rows."""
        shown = self.query_one(f"#{name}", DataTable)
        if not shown.row_count:
            return ""
        return str(shown.get_row_at(shown.cursor_row)[column])

    def action_stack(self) -> None:
        """Show the stack of the selected request, or the stacks of the selected process."""
        on_workers = self.focused is self.query_one("#workers")
        wanted = (
            self._selected("workers", 0)
            if on_workers
            else self._selected("requests", len(REQUEST_TITLES) - 1)
        )
        if wanted:
            self._command(stacks_text, "stack", wanted)

    def action_recycle(self) -> None:
        """Replace the selected process, or that of the selected request, after a question."""
        on_workers = self.focused is self.query_one("#workers")
        column = 0 if on_workers else REQUEST_TITLES.index("PROCESS")
        pid = self._selected("workers" if on_workers else "requests", column)
        if pid:
            self._confirm(f"Replace process {pid}? Its requests are finished.", "recycle", pid)

    def action_other_list(self) -> None:
        """Move the cursor to the processes, or back to the requests."""
        on_workers = self.focused is self.query_one("#workers")
        self.query_one("#requests" if on_workers else "#workers").focus()

    def action_reload(self) -> None:
        """Load the application again, after a question."""
        self._confirm("Load the application and the certificates again?", "reload")

    def _confirm(self, question: str, verb: str, *arguments: str) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._command(lambda result: str(result["message"]), verb, *arguments)

        self.push_screen(Question(question), answered)

    def _command(
        self, text_of: Callable[[dict[str, Any]], str], verb: str, *arguments: str
    ) -> None:
        """Carry out a command on a thread, and show its result."""

        def carry_out() -> None:
            with self._lock:
                try:
                    text = text_of(self._watcher.ask(verb, *arguments))
                except ControlError as error:
                    text = str(error)
            self.call_from_thread(self.push_screen, Page(text))

        self.run_worker(carry_out, thread=True, group="command")


class Page(ModalScreen[None]):
    """A text to read."""

    CSS = """
    Page { align: center middle; }
    Page > VerticalScroll { width: 95%; height: auto; max-height: 90%; border: round $primary;
                            background: $surface; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,s,enter", "dismiss", "Back")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(self._text, id="page", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()


class Question(ModalScreen[bool]):
    """A question to answer with y or n."""

    CSS = """
    Question { align: center middle; }
    Question > Static { width: auto; max-width: 90%; border: round $warning; background: $surface;
                        padding: 1 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape,q", "answer(False)", "No"),
    ]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(f"{self._text}  (y/n)", markup=False)
        yield Footer()

    def action_answer(self, yes: bool) -> None:
        """Return the answer to the screen that has asked."""
        self.dismiss(yes)


def _fill(shown: DataTable[Text], rows: Sequence[tuple[str, ...]], key: int) -> None:
    """Replace the rows of `shown`. The cursor stays on the row with the same cell `key`."""
    at = shown.cursor_row
    chosen = str(shown.get_row_at(at)[key]) if shown.row_count else ""
    shown.clear()
    for row in rows:
        style = _STYLES.get(row[_STATE_COLUMN].partition(" ")[0], "")
        cells = [Text(cell, style if n == _STATE_COLUMN else "") for n, cell in enumerate(row)]
        shown.add_row(*cells)
    keys = [row[key] for row in rows]
    shown.move_cursor(row=keys.index(chosen) if chosen in keys else min(at, len(rows) - 1))
