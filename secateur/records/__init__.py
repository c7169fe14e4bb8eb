"""Where results are kept: tracking in MLflow, and a registry of versions in DVC and git.

Both libraries read their environment when they are first imported; what is set here gives way to what the user set.
"""

import os

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's own 7 retries of up to 120 s each hold a step for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "DVC_NO_ANALYTICS": "true",
}

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
