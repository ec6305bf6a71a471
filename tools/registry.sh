# Sourced: the cache folder, and this machine's own registry, proxy and certificates, which uv does not read from pip's configuration.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/datarun"
export PIP_CACHE_DIR="$cache/pip" UV_CACHE_DIR="$cache/uv"
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_PYTHON_DOWNLOADS=never

pip_setting() {
  .venv/bin/python -m pip config get "global.$1" 2>/dev/null || true
}

# use VARIABLE VALUE: export it unless it is set already, or there is nothing to set.
use() {
  if [ -z "${!1:-}" ] && [ -n "$2" ]; then export "$1=$2"; fi
}

system_certificates() {
  local file
  for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [ -f "$file" ]; then echo "$file"; return; fi
  done
}

use PIP_CERT "$(pip_setting cert)"
use PIP_CERT "${SSL_CERT_FILE:-$(system_certificates)}"
use SSL_CERT_FILE "${PIP_CERT:-}"
use HTTPS_PROXY "${https_proxy:-$(pip_setting proxy)}"
use UV_DEFAULT_INDEX "${PIP_INDEX_URL:-$(pip_setting index-url)}"
use UV_INDEX "${PIP_EXTRA_INDEX_URL:-$(pip_setting extra-index-url | xargs)}"
use UV_FIND_LINKS "${PIP_FIND_LINKS:-$(pip_setting find-links | xargs)}"
