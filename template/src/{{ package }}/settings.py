"""Every setting with its default. What you change goes into settings.toml.

Flags win over the environment, the environment over settings.toml, that over the defaults here.
`[journal] url` in the file is JOURNAL_URL in the environment. An unknown name in the file is
refused; in the environment, which others share, it is not ours.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from .errors import UserError

FILE = Path("settings.toml")
ENVIRONMENTS = ("test", "staging", "production")
CANDIDATE = "staging"
"""The environment that holds what may become production's version."""
VERSIONS = Path("var/versions")
"""Where bundles that were pulled from the registry are kept."""
PACKAGE = __package__ or ""
UNSET = ("data_uri", "data_store", "events_webhook", "events_format")
"""Of these an empty variable does not count: so a pipeline passes on what nobody set."""


def how_to_fill(environment: str) -> str:
    """The command that gives an environment a version."""
    return "make train" if environment == "test" else f"make promote ENV={environment}"


Level = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    BeforeValidator(lambda level: level.upper() if isinstance(level, str) else level),
]


def _prefix(path: object) -> object:
    return path.strip("/") and f"/{path.strip('/')}" if isinstance(path, str) else path


RootPath = Annotated[str, BeforeValidator(_prefix)]
Parameter = Annotated[
    bool | int | float | str | list[Any] | None,
    BeforeValidator(lambda value: None if value == "None" else value),
]
Stripped = Annotated[str, StringConstraints(strip_whitespace=True)]


class Section(BaseModel):
    """A section of settings.toml; what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Model(Section):
    """[model]: the name in the registry."""

    name: str = PACKAGE.replace("_", "-")
    """The registered model."""
    registry: str = "model"
    """Which of a server's registries it is in, where a server has several."""
    per_environment: bool = False
    """Whether staging and production are registered models of their own, such as production.NAME,
    with a history of their own, so that the registry's permissions say who promotes. Each way has
    its own memory: promote the new way before a change of it is committed."""


class Data(Section):
    """[data]: what is trained on."""

    uri: str = ""
    """CSV or Parquet file or address, or a SQL URL with #table; empty means project/data.py's."""
    journal: bool = True
    """Whether rows served and labelled since then are trained on too."""
    journal_rows: int = Field(100_000, gt=0)
    """How many of those are read, the newest ones; they are held in memory."""
    store: Stripped = ""
    """Where the snapshot of each registered version is kept too: a folder, or an address such as
    s3://bucket/path, gs://bucket/path or abfs://container/path, for which pyproject.toml needs
    s3fs, gcsfs or adlfs. If empty, snapshots are only in data/snapshots/; one space in DATA_STORE
    means the same, whatever the file says."""


class Train(Section):
    """[train]: how a procedure is chosen and judged."""

    seed: int = 0
    holdout: float = Field(0.2, gt=0, lt=1)
    """Share of the rows, the newest, that judge the model, by models that have not seen them. The
    model that is served is then fitted on them too."""
    folds: int = Field(5, gt=0)
    """Blocks of the rows that judge; each is scored by a model of the rows before it."""
    windows: tuple[float, ...] = (1.0, 0.33, 0.11)
    """Shares of the rows, the newest, to fit on: each is tried, and the best one taken."""
    window: int | None = Field(None, gt=0)
    """How many of the newest rows to use at all; all of them if unset."""
    min_rows: int = 100
    """Fewer labelled rows than this are refused."""
    parameters: dict[str, Parameter] = {}
    """Parameters of the estimator that replace those of project/model.py, by scikit-learn's names,
    such as { randomforestclassifier__max_depth = 8 }; "None" is Python's None. `make tune` prints
    the best it found."""


class Gates(Section):
    """[gates]: what a promotion asks for."""

    parity: float = 1e-4
    """Largest difference between the exported model and the trained one: absolute for
    probabilities, relative for values."""
    max_bundle_mb: float = 100
    margin: float = 0.0
    """How much better than the model in place, in the metric's own unit; below zero tolerates a
    loss."""
    confidence: float = Field(0.95, ge=0, le=1)
    """How sure a gain of `margin` must be (1 - the p-value of a one-sided paired test). In a
    classification 0.9 is enough if the Brier score is better with half of the doubt (0.975)."""
    min_rows: int = 300
    """Fewer labelled rows that neither model had seen than this decide nothing."""
    load: bool = True
    """Whether production asks for a load report within the limits."""
    shadow_rows: int = Field(0, ge=0)
    """Rows of production that the candidate must have predicted as a shadow (`serving.shadow`),
    beside the version in place, before it goes there; where they are labelled it must not be surely
    worse. 0 asks for none."""
    approval: Literal["ci", "name", "none"] = "ci"
    """Who lets a version into production. `ci`: in a pipeline a person, through the protected
    environment; by hand nobody is asked. `name`: by hand a name (BY=) is asked for, too. `none`:
    nobody."""
    unattended: bool = False
    """Whether the cycle may promote to production with no hand on it."""


class Cycle(Section):
    """[cycle]: when a candidate is compared, and with what."""

    rows: int = Field(300, gt=0)
    """New labelled rows that make a turn of the cycle compare a candidate with what is served."""
    confidence_after_fall: float = Field(0.5, ge=0, le=1)
    """Instead of `gates.confidence`, once the monitor says that the metric fell: better rather than
    not."""
    earlier: int = Field(3, ge=0)
    """Earlier versions of production that are compared, too."""


class Serving(Section):
    """[serving]: the server."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, gt=0)
    """Processes that answer, one processor each (see serving/workers/processes.py)."""
    bundles: Path = Path("var/bundles")
    """A folder of bundles for each environment, or, in the image of a version, a bundle."""
    poll: float = Field(5.0, gt=0)
    """Seconds between two looks at the registry."""
    max_batch: int = Field(1000, gt=0)
    """Rows in one request."""
    max_body_mb: float = Field(5.0, gt=0)
    access_log: bool = False
    """Whether each request is logged; it costs a tenth of the throughput. Errors always are."""
    log_level: Level = "INFO"
    keep_alive_seconds: int = Field(75, gt=0)
    """How long a connection that nobody uses stays open: longer than clients and proxies keep it,
    or one of them sends a request just as it is closed."""
    tokens_file: Stripped = ""
    """A file of tokens; who has none is refused then (see serving/access/tokens.py). The variable
    SERVING_TOKENS may hold them instead. With neither, everyone may ask everything."""
    root_path: RootPath = ""
    """The prefix behind which a proxy shows this server, such as /model, whether the proxy cuts it
    off or not; the name of a route, such as /predictions, cannot be one."""
    stop_seconds: int = 10
    """How long a stop waits for requests under way."""
    shadow: Literal["", "staging"] = ""
    """Beside production: what staging holds predicts the same rows in the background, never in an
    answer (see serving/candidate/shadow.py)."""
    canary: float = Field(0.0, ge=0, lt=1)
    """Beside production: the share of the requests that what staging holds answers, until it is
    promoted or taken back (see serving/candidate/canary.py)."""

    @property
    def candidate(self) -> bool:
        """Whether what staging holds runs beside what production holds."""
        return bool(self.shadow or self.canary)


class Journal(Section):
    """[journal]: where predictions and outcomes are kept."""

    url: str = "sqlite:///var/journal.db"
    """SQLite or postgresql+psycopg:// ; empty keeps no journal."""
    flush_seconds: float = Field(0.5, gt=0)
    """How long a line may wait to be written: what a killed server loses."""
    queue: int = Field(20_000, gt=0)
    """Lines that may wait while the database is down; more are dropped, counted and told."""
    queue_mb: float = Field(64.0, gt=0)
    """The same in megabytes: a line may hold long texts."""
    retention_days: int | None = Field(365, gt=0)


class Monitor(Section):
    """[monitor]: what counts as a fall or as drift."""

    window: Annotated[int, Field(ge=30)] | Literal["day", "week"] = 1000
    """Labelled rows in a window of the metric, or the span of one. Drift of the data is judged by
    days where there is a time, by weeks where a day has fewer rows than this."""
    margin: float = Field(0.0, ge=0)
    """How much worse than at promotion the metric may surely be (95 %) without an alarm, in the
    metric's own unit."""
    threshold: float = Field(0.1, gt=0)
    """Distances below this are no drift of a column, however sure they are."""
    confirm: int = Field(2, gt=0)
    """Violated windows, among the newest `recent` ones, that confirm a fall."""
    recent: int = Field(5, gt=0)
    """Windows that the verdict looks at."""


class Events(Section):
    """[events]: the webhook that gets each promotion, rollback, refusal, verdict and training.

    The key that signs them is EVENTS_SECRET, an environment variable only; without it they are not
    signed.
    """

    webhook: Stripped = ""
    """The address that each event is posted to; if empty, none is. One space in EVENTS_WEBHOOK
    means the same, whatever the file says. If the address is itself a secret, such as Slack's, put
    it into EVENTS_WEBHOOK, not into the file."""
    format: Literal["json", "slack"] = "json"
    """`json` posts all fields; `slack` only the text, for Slack's incoming webhooks."""


class Load(Section):
    """[load]: the load test and its limits."""

    users: int = Field(100, gt=0)
    """Clients at once; each waits 1 to 5 seconds between two requests."""
    spawn_rate: float = Field(10, gt=0)
    """Clients that start per second."""
    run_time: int = Field(20, gt=0)
    """Seconds of load."""
    p95_ms: float = Field(250, gt=0)
    """Most milliseconds that 95 of 100 one-row predictions may take."""
    p99_ms: float = Field(1000, gt=0)
    """Most milliseconds that 99 of 100 one-row predictions may take."""
    max_failure_ratio: float = Field(0.001, ge=0, le=1)
    """Share of all requests that may fail."""
    workers: int = Field(1, gt=0)
    """Locust's processes, for `make load` and `make capacity`; `WORKERS=` overrides it."""
    worker_port: int = Field(5557, gt=0, lt=65536)
    """Where workers on other machines reach `make load BIND=`."""
    worker_wait: int = Field(120, gt=0)
    """Most seconds until all workers are there."""
    capacity_start: float = Field(50, gt=0)
    """Requests per second of the first step of `make capacity`; each step doubles it."""
    capacity_seconds: int = Field(8, gt=0)
    """Seconds of a step."""
    capacity_steps: int = Field(10, gt=0)
    """Most steps."""


class Engine(Section):
    """[engine]: what `make tune` and `make score` run on, many parts at once."""

    name: Literal["local", "dask", "ray"] = "local"
    """`local`: processes of this machine. `dask` and `ray` need packages that are not installed by
    default: write `ENGINES = dask` into local.mk, then `make lock setup`."""
    address: Stripped = ""
    """The cluster's, such as tcp://scheduler:8786 for Dask, or ray://head:10001 or auto for Ray; if
    empty, one is started on this machine. The cluster's workers need the same environment."""
    workers: int | None = Field(None, gt=0)
    """Processes to start on this machine; if unset, as many as it has processors. Each holds two
    partitions of `make score`, or all rows of `make tune`."""


class Settings(BaseSettings):
    """All sections; raises UserError from `load` when a value does not fit."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", toml_file=FILE
    )

    model: Model = Model()
    data: Data = Data()
    train: Train = Train()
    gates: Gates = Gates()
    cycle: Cycle = Cycle()
    serving: Serving = Serving()
    journal: Journal = Journal()
    monitor: Monitor = Monitor()
    events: Events = Events()
    load: Load = Load()
    engine: Engine = Engine()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags win over the environment, and that over settings.toml."""
        if isinstance(env_settings, EnvSettingsSource):  # a bare DATA, as make sets, is not ours
            known = {
                f"{section}_{name}"
                for section, field in settings_cls.model_fields.items()
                for name in field.annotation.model_fields  # type: ignore[union-attr]
            }
            given = {k: v for k, v in env_settings.env_vars.items() if k in known}
            env_settings.env_vars = {k: v for k, v in given.items() if v or k not in UNSET}
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load(**flags: dict[str, Any]) -> Settings:
    """The settings in force; `flags` are sections of values, e.g. serving={"port": 8001}.

    Raises UserError naming the setting, the value and what was expected.
    """
    try:
        return Settings(**flags)  # type: ignore[arg-type]
    except ValidationError as error:
        wrong: dict[str, list[str]] = {}
        for e in error.errors():
            # Of a setting of several kinds each is an error, with the kind's name in its place.
            name = [str(part) for i, part in enumerate(e["loc"]) if i < 2 or isinstance(part, int)]
            value = "" if name[0] == "events" else f" = {e['input']!r}"  # may be a secret
            wrong.setdefault(f"{'.'.join(name)}{value}", []).append(e["msg"])
        lines = [
            f"{what}: {' or '.join([why, *(w.removeprefix('Input should be ') for w in more)])}"
            for what, (why, *more) in wrong.items()
        ]
        raise UserError(
            f"settings: {'; '.join(lines)}; see settings.py for what there is"
        ) from None
    except ValueError as error:
        raise UserError(f"{FILE}: {error}") from None
