"""MLflow, as the pipelines reach it."""

SWITCH = "MLFLOW_TRACKING_URI"
"""The variable without which nothing is registered, watched or promoted."""
VARIABLES: dict[str, str] = {}
"""Others, and what each is for."""
LOGINS = ({"MLFLOW_TRACKING_TOKEN"}, {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"})
"""The secrets of each way to log in."""
