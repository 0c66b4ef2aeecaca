# Sourced by the other scripts, with ROOT set to the checkout. Sets VENV and PYTHON to the active environment, or to
# .venv in the checkout (which install.sh creates) if none is active. Plain POSIX shell.
if [ -n "${VIRTUAL_ENV:-}" ]; then
    VENV=$VIRTUAL_ENV
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
    VENV=$CONDA_PREFIX
else
    VENV=$ROOT/.venv
fi
PYTHON=$VENV/bin/python

# Exits with an error if that environment has not been set up.
require_python() {
    if [ ! -x "$PYTHON" ]; then
        echo "error: $PYTHON does not exist; run \`bash scripts/install.sh\` first, or activate an environment" >&2
        exit 2
    fi
}
