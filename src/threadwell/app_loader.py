"""Finds and imports the application that a command line names, or explains why it cannot."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import sys
import traceback
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from .app_expression import parse_expression
from .worker import MARKER, ConfigError, nearest
from .worker.app_kind import remember_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

#: The files that are tried, in this order, if no application is named.
DEFAULT_FILES = ("wsgi.py", "app.py")
APP_NAMES = ("application", "app")
FACTORY_NAMES = ("create_app", "make_app")

_FILE = re.compile(r"(.+?\.py)(?::(.*))?", re.DOTALL)


class AppError(Exception):
    """There is no application to serve. The message says why, and suggests a fix.

    `trace` is the traceback of the user's code if that is what failed; else it is empty.
    """

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class NestedServeError(ConfigError):
    """`serve` was called by a module that is imported to be served."""

    def __init__(self) -> None:
        guard = 'if __name__ == "__main__":'
        super().__init__(
            f"serve() was called while the application is imported; put the call under `{guard}`"
        )


class LoadedApp(NamedTuple):
    """An application, and its name: `module:attribute`."""

    app: Any
    name: str


def load_app(
    spec: str | None = None, directory: str | os.PathLike[str] = ".", *, factory: bool = False
) -> LoadedApp:
    """Import the application that `spec` names. `directory` is put first on `sys.path`.

    `spec` is `module:attribute`, or `module:create_app("x", debug=False)` with literal arguments,
    or a module alone. The path of a file or a folder may stand in the place of the module. None
    means `wsgi.py` or `app.py` in `directory`. With `factory`, the attribute is called.

    Raises `AppError`.
    """
    home = _absolute(Path(directory))
    _prepend_to_path(home)
    name, expression = _locate(spec, home)
    with importing():
        module = _import(name, home)
        if expression is None:
            found, label = _discover(module, factory)
        else:
            found, label = _evaluate(module, expression, factory)
    _check(found, label)
    remember_name(found, label)
    return LoadedApp(found, label)


def has_default_app(directory: str | os.PathLike[str] = ".") -> bool:
    """Whether `load_app(None, directory)` finds a file. Nothing is imported."""
    return any(Path(directory, name).is_file() for name in DEFAULT_FILES)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While an application is imported: `refuse_nested_serve` raises in this process."""
    _importing.append(True)
    try:
        yield
    finally:
        _importing.pop()


_importing: list[bool] = []


def refuse_nested_serve() -> None:
    """Raise `NestedServeError` while an application is imported.

    A module that calls `serve("module:app")` whenever it is imported would start servers without
    end, each of which imports it again.
    """
    if _importing:
        raise NestedServeError


def app_folder(spec: str | None, directory: str | os.PathLike[str] = ".") -> list[str]:
    """The folder that `spec` names, or that of the file; empty if it names a module.

    Nothing is imported, and the path need not exist.
    """
    if not spec:
        return []
    match = _FILE.fullmatch(spec)
    path = match[1] if match else spec.partition(":")[0]
    if not match and not _is_path(path, Path(directory)):
        return []
    place = next(
        (
            base
            for base in (_absolute(Path(path)), _absolute(Path(directory, path)))
            if base.exists()
        ),
        _absolute(Path(path)),
    )
    return [str(place if place.is_dir() else place.parent)]


# ---- Finding the module -------------------------------------------------------------------


def _locate(spec: str | None, home: Path) -> tuple[str, str | None]:
    """The name of the module, which can then be imported, and the expression after the colon."""
    if not spec:
        return _module_of(_default_file(home, "no application was named, and "), home), None
    if match := _FILE.fullmatch(spec):
        path, expression = match[1], match[2]
    else:
        drive, rest = os.path.splitdrive(spec)
        path, colon, after = rest.partition(":")
        path, expression = drive + path, after if colon else None
    if expression is not None and not expression.strip():
        raise AppError(f"{spec!r} has nothing after the colon; write {path}:app, or {path}")
    if match or _is_path(path, home):
        return _module_of(_find_path(path, home), home), expression
    if not all(path.split(".")):
        raise AppError(f"{spec!r} does not name a module; write module:app, or the path of a file")
    return path, expression


def _is_path(text: str, home: Path) -> bool:
    if "/" in text or os.sep in text or text in (".", ".."):
        return True
    folder = home / text
    # Without __init__.py, a folder would be imported as an empty namespace package.
    is_module = (folder / "__init__.py").exists() or folder.with_name(text + ".py").exists()
    return bool(text) and folder.is_dir() and not is_module


def _find_path(text: str, home: Path) -> Path:
    for base in (Path.cwd(), home):
        path = _absolute(base / text)
        for candidate in (path, path.with_name(path.name + ".py")):
            if candidate.exists():
                return candidate
    siblings = [entry.name for entry in path.parent.glob("*.py")]
    hint = _did_you_mean(path.name, siblings, lambda name: str(Path(text).with_name(name)))
    raise AppError(f"there is no file {text}{hint or '; check the path'}")


def _default_file(folder: Path, reason: str = "") -> Path:
    for name in DEFAULT_FILES:
        if (folder / name).is_file():
            return folder / name
    hint = "name the application, such as module:app"
    inner = sorted(folder.glob("*/wsgi.py"))
    if len(inner) == 1:  # A Django project, from the folder of manage.py.
        hint = f"did you mean {inner[0].parent.name}.wsgi?"
    raise AppError(f"{reason}there is no {' or '.join(DEFAULT_FILES)} in {folder}; {hint}")


def _module_of(path: Path, home: Path) -> str:
    """The module name of `path`. The folder above its packages is put on `sys.path`."""
    if path.is_dir() and not (path / "__init__.py").exists():
        path = _default_file(path)
    place = path.parent if path.name == "__init__.py" else path.with_suffix("")
    names = [place.name]
    while (place.parent / "__init__.py").exists() and place.parent != place:
        place = place.parent
        names.insert(0, place.name)
    if any("." in name for name in names):
        raise AppError(f"{path} cannot be imported with a dot in its name; rename it")
    if place.parent != home:
        _prepend_to_path(place.parent)
    name = ".".join(names)
    _check_name_is_free(name, path)
    return name


def _check_name_is_free(name: str, path: Path) -> None:
    module = sys.modules.get(name)
    if module is None:
        return
    file = path / "__init__.py" if path.is_dir() else path
    taken_by = getattr(module, "__file__", None)
    if taken_by is None or not file.samefile(taken_by):
        raise AppError(
            f"{path} is named like the module {name!r}, which is imported already; rename the file"
        )


def _absolute(path: Path) -> Path:
    # Without resolving links: the folder is the one that the user named.
    return Path(os.path.abspath(path))


def _prepend_to_path(folder: Path) -> None:
    entry = str(folder)
    if not sys.path or sys.path[0] != entry:
        sys.path.insert(0, entry)
    _forget_listings(entry)


def _forget_listings(entry: str) -> None:
    """Let files be found that are newer than the last look at their folders; `entry` may be, too.

    `importlib.invalidate_caches` does the same, but imports `importlib.metadata` for it, and with
    that the modules of mail, archives and compression.
    """
    sys.path_importer_cache.pop(entry, None)
    for finder in (*sys.meta_path, *sys.path_importer_cache.copy().values()):
        invalidate = getattr(finder, "invalidate_caches", None)
        if finder is not PathFinder and invalidate is not None:
            invalidate()


# ---- Importing the module -----------------------------------------------------------------


@contextlib.contextmanager
def _user_code(failed: str) -> Iterator[None]:
    """Turn what the user's code raises into an `AppError` with the traceback of that code only."""
    try:
        yield
    except (AppError, NestedServeError):
        raise
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}".removesuffix(": ")
        if isinstance(error, ModuleNotFoundError):
            from .django_settings import settings_mistake  # most programs start

            if mistake := settings_mistake(error):
                raise AppError(mistake) from None
            cause += "; install what is missing, in the environment that threadwell runs in"
        error.__traceback__ = _user_frames(error.__traceback__)
        trace = "".join(traceback.format_exception(error))
        raise AppError(f"{failed}: {cause}", trace) from None


def _user_frames(trace: TracebackType | None) -> TracebackType | None:
    """`trace` without the first frames, which belong to this module and the import system."""
    internal = (load_app.__code__.co_filename, importlib.import_module.__code__.co_filename)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in internal and not file.startswith("<frozen importlib"):
            break
        trace = trace.tb_next
    return trace


def _import(name: str, home: Path) -> ModuleType:
    with _user_code(f"{name} failed while it was imported"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if _user_frames(error.__traceback__) is not None:
                raise  # An import within the module has failed.
            missing = error.name or name
    raise AppError(
        f"there is no module {missing!r} in {home} nor on the path{_module_hint(missing, home)}"
    )


def _module_hint(missing: str, home: Path) -> str:
    parent, _, last = missing.rpartition(".")
    package = sys.modules.get(parent)
    if package is not None and hasattr(package, last):
        return f"; did you mean {parent}:{last}?"
    places = getattr(package, "__path__", None) if parent else [str(home)]
    import pkgutil  # imported only for an error message, to keep the start fast

    names = [module.name for module in pkgutil.iter_modules(places)] if places else []
    spelled = _did_you_mean(last, names, lambda name: f"{parent}.{name}" if parent else name)
    return spelled or "; --app-dir says where to look"


# ---- Finding the application in the module ------------------------------------------------


def _evaluate(module: ModuleType, expression: str, factory: bool) -> tuple[Any, str]:
    try:
        names, arguments = parse_expression(expression)
    except ValueError as error:
        raise AppError(str(error)) from None
    dotted = ".".join(names)
    found: Any = module
    for at, name in enumerate(names):
        found = _attribute(found, name, ":".join((module.__name__, ".".join(names[:at]))))
    label = f"{module.__name__}:{dotted}"
    if arguments is not None:
        return _call(found, label, *arguments), f"{module.__name__}:{expression.strip()}"
    if factory or _is_factory(found, names[-1]):
        return _call(found, label), f"{label}()"
    return found, label


def _attribute(target: Any, name: str, label: str) -> Any:
    with _user_code(f"{label.rstrip(':')} failed while its attribute {name!r} was read"):
        try:
            return getattr(target, name)
        except AttributeError:
            pass
    prefix = label if label.endswith(":") else label + "."
    names = [other for other in dir(target) if not other.startswith("_")]
    hint = _did_you_mean(name, names, lambda other: prefix + other)
    raise AppError(
        f"{label.rstrip(':')} has no attribute {name!r}"
        f"{hint or '; name the application that it has'}"
    )


def _discover(module: ModuleType, factory: bool) -> tuple[Any, str]:
    """The application of a module that was named alone, found by the names that are usual."""
    name = module.__name__
    for attribute in () if factory else APP_NAMES:
        found = getattr(module, attribute, None)
        if callable(found):
            return found, f"{name}:{attribute}"
    for attribute in FACTORY_NAMES:
        found = getattr(module, attribute, None)
        if callable(found):
            return _call(found, f"{name}:{attribute}"), f"{name}:{attribute}()"
    looking = {} if factory else _find_apps(module)
    if len(looking) == 1:
        ((attribute, found),) = looking.items()
        return found, f"{name}:{attribute}"
    if looking:
        several = ", ".join(looking)
        raise AppError(
            f"{name} has several applications, {several}; name one, such as"
            f" {name}:{next(iter(looking))}"
        )
    wanted = ", ".join(FACTORY_NAMES if factory else APP_NAMES + FACTORY_NAMES)
    raise AppError(f"{name} has none of {wanted}; name its application, such as {name}:my_app")


def _find_apps(module: ModuleType) -> dict[str, Any]:
    """The objects in `module` that look like an application, by name, each object once."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or any(value is other for other in found.values()):
            continue
        if _looks_like_an_app(value, module):
            found[name] = value
    return found


def _looks_like_an_app(value: Any, module: ModuleType) -> bool:
    is_code = inspect.isclass(value) or inspect.isroutine(value)
    if is_code and getattr(value, "__module__", None) != module.__name__:
        return False  # It was imported from elsewhere.
    # `getattr` would fail for a proxy such as `request` of Flask, outside of a request.
    if inspect.getattr_static(value, MARKER, None) is not None:
        return not inspect.isclass(value)
    names = _parameters(value if is_code else inspect.getattr_static(type(value), "__call__", None))
    return (names if is_code else names[1:])[:2] == ["environ", "start_response"]


def _parameters(function: Any) -> list[str]:
    try:
        return list(_signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _signature(function: Any) -> inspect.Signature:
    """The arguments that a call of `function` takes. What it wraps tells only where it takes any.

    Raises `TypeError` and `ValueError`.
    """
    own = inspect.signature(function, follow_wrapped=False)
    if any(each.kind is each.VAR_POSITIONAL for each in own.parameters.values()):
        return inspect.signature(function)
    return own


# ---- Factories and their results ----------------------------------------------------------


def _is_factory(found: Any, name: str) -> bool:
    """Whether `found`, named without parentheses, must be called to get the application."""
    if not inspect.isfunction(found) or hasattr(found, MARKER):
        return False
    return name in FACTORY_NAMES or not _signature(found).parameters


def _call(
    factory: Any, label: str, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
) -> Any:
    if not callable(factory):
        raise AppError(f"{label} is {_describe(factory)} and cannot be called; leave out the call")
    if inspect.iscoroutinefunction(factory):
        raise AppError(f"{label} is a coroutine function; a factory must be an ordinary one")
    keywords = kwargs or {}
    with contextlib.suppress(ValueError):  # Some types written in C have no signature.
        try:
            _signature(factory).bind(*args, **keywords)
        except TypeError as error:
            raise AppError(
                f"{label} cannot be called like that: {error}; give its arguments,"
                f" such as {label}('x')"
            ) from None
    with _user_code(f"{label}() failed"):
        app = factory(*args, **keywords)
    if app is None:
        raise AppError(f"{label}() returned None; it must return the application")
    return app


def _check(app: Any, label: str) -> None:
    if app is None:
        raise AppError(f"{label} is None; it must be the application when the module is imported")
    if not callable(app):
        raise AppError(
            f"{label} is {_describe(app)} and cannot be called; an application is a WSGI"
            " callable or a SyncApp"
        )
    if inspect.isclass(app) and not hasattr(app, MARKER) and not _takes_arguments(app):
        raise AppError(
            f"{label} is a class that takes no arguments; write {label}() for an instance"
        )


def _takes_arguments(app: Any) -> bool:
    try:
        return bool(_signature(app).parameters)
    except (TypeError, ValueError):
        return True


def _describe(value: Any) -> str:
    if isinstance(value, ModuleType):
        return f"the module {value.__name__}"
    return f"of type {type(value).__name__}"


def _did_you_mean(name: str, names: Iterable[str], spell: Callable[[str], str]) -> str:
    near = nearest(name, names)
    return f"; did you mean {spell(near)}?" if near else ""
