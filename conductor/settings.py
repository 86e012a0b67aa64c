"""Django's settings. Every value that differs between machines comes from the environment.

docs/operations.md lists the variables. Importing this module starts nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import django_stubs_ext
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import SimpleLazyObject

from conductor import environment, keys
from conductor.embedded.server import Server

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
VAR_DIR = Path(environment.text("CONDUCTOR_VAR_DIR", str(BASE_DIR / "var"))).absolute()
DEBUG = environment.boolean("DEBUG", default=False)

# --- Database -------------------------------------------------------------------------------------
EMBEDDED = not environment.postgres_url("DATABASE_URL")
CONDUCTOR_POSTGRES_PORT = environment.integer(
    "CONDUCTOR_POSTGRES_PORT", 0, minimum=0, maximum=65535
)
EMBEDDED_SERVER = Server(VAR_DIR, CONDUCTOR_POSTGRES_PORT) if EMBEDDED else None
WEB = environment.text("CONDUCTOR_PROCESS") == "web"
WEB_CONNECTIONS = environment.integer("CONDUCTOR_WEB_CONNECTIONS", 10, minimum=1, maximum=500)

_database: dict[str, Any] = (
    {"ENGINE": "conductor.embedded", "NAME": "conductor"}
    if EMBEDDED
    else environment.database("DATABASE_URL")
)
# The server keeps the plan of what a connection asks again and again.
_database["OPTIONS"] = {
    "server_side_binding": True,
    "prepare_threshold": 2,
    **_database.get("OPTIONS", {}),
}
if WEB:
    # Requests of an ASGI server each use a connection of their own: they share a pool.
    _pool = {"min_size": 1, "max_size": WEB_CONNECTIONS}
    _database["OPTIONS"] |= {"pool": _pool}
    _database |= {"CONN_MAX_AGE": 0, "CONN_HEALTH_CHECKS": True}
else:
    # A worker forks, and forked processes cannot share a pool: one lasting connection each.
    _database |= {"CONN_MAX_AGE": None}
# Without it, each connection that a restart of PostgreSQL has broken would fail once.
_database |= {"CONN_HEALTH_CHECKS": True}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _admin_url() -> str:
    """Return the address of the PostgreSQL server on which the `postgres` driver creates databases."""
    configured = environment.postgres_url("CONDUCTOR_POSTGRES_ADMIN_URL")
    if configured:
        return configured
    if EMBEDDED_SERVER is not None:
        return EMBEDDED_SERVER.ensure().url()
    raise ImproperlyConfigured(
        "The postgres driver has no server to create databases on: set CONDUCTOR_POSTGRES_ADMIN_URL "
        "to postgres://user:password@host:5432/postgres of a user who may create databases and roles."
    )


environment.postgres_url("CONDUCTOR_POSTGRES_ADMIN_URL")
CONDUCTOR_POSTGRES_ADMIN_URL = _admin_url
"""A function without arguments: calling it may start the embedded server, reading it does not."""

# --- Keys -----------------------------------------------------------------------------------------
SECRET_KEY: Any = environment.text("SECRET_KEY")
ENCRYPTION_KEYS: Any = environment.fernet_keys("CONDUCTOR_ENCRYPTION_KEYS")
SECRET_KEY_FALLBACKS = environment.words("SECRET_KEY_FALLBACKS")
if EMBEDDED:
    if not SECRET_KEY:
        SECRET_KEY = keys.LaterKey(lambda: keys.kept(VAR_DIR / "secret-key"))
    if not ENCRYPTION_KEYS:
        ENCRYPTION_KEYS = SimpleLazyObject(
            lambda: keys.kept(
                VAR_DIR / "encryption-keys", lambda: Fernet.generate_key().decode()
            ).split()
        )
for _name, _value in {
    "SECRET_KEY": SECRET_KEY,
    "CONDUCTOR_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
}.items():
    if not EMBEDDED and not _value:
        raise ImproperlyConfigured(
            f"{_name} must be set when DATABASE_URL is set: the data of that database is signed and "
            "encrypted with it, so it must be the same on every machine and outlive each of them."
        )

# --- Web ------------------------------------------------------------------------------------------
ALLOWED_HOSTS = environment.words("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
CONDUCTOR_URL = environment.http_url("CONDUCTOR_URL", "http://127.0.0.1:8000")
CSRF_TRUSTED_ORIGINS = environment.words("CSRF_TRUSTED_ORIGINS")
HTTPS = environment.boolean("CONDUCTOR_HTTPS", default=not EMBEDDED and not DEBUG)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True
SECURE_HSTS_SECONDS = 3600 * 24 * 365 if HTTPS else 0
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

ROOT_URLCONF = "conductor.urls"
ASGI_APPLICATION = "conductor.asgi.application"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"

INSTALLED_APPS = [
    "conductor",
    "portal",
    "provisioning",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_q",
    "rest_framework",
    "rest_framework.authtoken",
    "django_htmx",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "portal.middleware.StaticFiles",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "portal.middleware.content_security_policy",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "portal.context.maintenance",
            ]
        },
    }
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"] if (BASE_DIR / "static").is_dir() else []
# Files are served from where they are, found once at the start: nothing has to be collected.
WHITENOISE_USE_FINDERS = True

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["portal.api.parsers.StorableJSONParser"],
    "EXCEPTION_HANDLER": "portal.api.errors.answer",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.LimitOffsetPagination",
    "PAGE_SIZE": 50,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

# --- Provisioning ---------------------------------------------------------------------------------
CONDUCTOR_QUEUES = environment.words("CONDUCTOR_QUEUES", ["default"])
CONDUCTOR_WORKERS = environment.integer("CONDUCTOR_WORKERS", 2, minimum=1, maximum=64)
CONDUCTOR_LEASE_SECONDS = environment.integer("CONDUCTOR_LEASE_SECONDS", 20, minimum=1, maximum=600)
CONDUCTOR_DEPLOYMENT_TIMEOUT_SECONDS = environment.integer(
    "CONDUCTOR_DEPLOYMENT_TIMEOUT_SECONDS", 4 * 3600, minimum=1, maximum=30 * 24 * 3600
)
CONDUCTOR_APPROVAL_DAYS = environment.integer("CONDUCTOR_APPROVAL_DAYS", 7, minimum=1, maximum=365)
CONDUCTOR_LOG_DAYS = environment.integer("CONDUCTOR_LOG_DAYS", 30, minimum=1, maximum=3650)
CONDUCTOR_STATE_VERSIONS = environment.integer(
    "CONDUCTOR_STATE_VERSIONS", 10, minimum=1, maximum=1000
)
CONDUCTOR_STATE_MEGABYTES = environment.integer(
    "CONDUCTOR_STATE_MEGABYTES", 64, minimum=1, maximum=500
)
CONDUCTOR_TERRAFORM = environment.text("CONDUCTOR_TERRAFORM", "terraform")
CONDUCTOR_METRICS_TOKEN = environment.secret("CONDUCTOR_METRICS_TOKEN", minimum=16)
environment.leave("CONDUCTOR_TERRAFORM_CONFIG", "CONDUCTOR_FAKE_LEDGER", "CONDUCTOR_SECRETS_DIR")
environment.leave("CONDUCTOR_SANDBOX", "CONDUCTOR_SANDBOX_PATHS")
environment.leave("CONDUCTOR_TOOL_MEMORY", "CONDUCTOR_TOOL_PROCESSES")
environment.leave("CONDUCTOR_TERRAFORM_HOSTS", "CONDUCTOR_TERRAFORM_MIRROR")
CONDUCTOR_CATALOG_HOSTS = environment.words("CONDUCTOR_CATALOG_HOSTS")
CONDUCTOR_WORK_DIR = Path(environment.text("CONDUCTOR_WORK_DIR", str(VAR_DIR / "work"))).absolute()
CONDUCTOR_CATALOG = Path(
    environment.text("CONDUCTOR_CATALOG", str(BASE_DIR / "catalog"))
).absolute()

_DAY = 24 * 3600
Q_CLUSTER = {
    "name": "conductor",
    "label": "Queue",
    "orm": "default",
    "broker_class": "provisioning.queue.broker.NotifyBroker",
    "workers": CONDUCTOR_WORKERS,
    "recycle": 200,
    # A doorbell runs once, for as long as it takes: leases, deadlines and retries are the steps' own.
    "timeout": _DAY,
    "retry": _DAY + 3600,
    "max_attempts": 1,
    "ack_failures": True,
    "save_limit": -1,
    "catch_up": False,
}

DEFAULT_EXCEPTION_REPORTER_FILTER = "conductor.error_reports.SilentFilter"

# --- Logs -----------------------------------------------------------------------------------------
LOG_LEVEL = environment.text("CONDUCTOR_LOG_LEVEL", "INFO").upper()
if LOG_LEVEL not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
    raise ImproperlyConfigured(
        f"CONDUCTOR_LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, and is {LOG_LEVEL!r}."
    )
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        name: {"handlers": ["stderr"], "level": LOG_LEVEL, "propagate": False}
        for name in ("conductor", "portal", "provisioning")
    }
    | {"django-q": {"handlers": ["stderr"], "level": "WARNING", "propagate": False}}
    # Strangers who ask for other hosts get their 400; they do not get to fill the log.
    | {"django.security.DisallowedHost": {"level": "CRITICAL"}},
}
