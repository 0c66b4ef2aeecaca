# Sourced by the other scripts, with ROOT set to the checkout: sets VENV and PYTHON, the environment that is
# active, else the checkout's own .venv (which only install.sh makes). Plain POSIX shell.
if [ -n "${VIRTUAL_ENV:-}" ]; then
    VENV=$VIRTUAL_ENV
elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then
    VENV=$CONDA_PREFIX
else
    VENV=$ROOT/.venv
fi
PYTHON=$VENV/bin/python

# Ends the script where that environment is not set up.
require_python() {
    if [ ! -x "$PYTHON" ]; then
        echo "error: $PYTHON is not there; run \`bash scripts/install.sh\` first, or activate an environment" >&2
        exit 2
    fi
}
