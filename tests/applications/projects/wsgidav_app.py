"""WsgiDAV with a folder and one user, as its own command configures it."""

from pathlib import Path

from wsgidav.wsgidav_app import WsgiDAVApp

folder = Path("shared")
folder.mkdir(exist_ok=True)

app = WsgiDAVApp(
    {
        "provider_mapping": {"/": str(folder)},
        "simple_dc": {"user_mapping": {"*": {"user": {"password": "secret"}}}},
        "http_authenticator": {
            "accept_basic": True,
            "accept_digest": False,
            "default_to_digest": False,
        },
        "logging": {"enable": True},
        "property_manager": True,
        "lock_storage": True,
        "verbose": 1,
    }
)
