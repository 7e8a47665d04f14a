# Functions of the scripts beside this file.

# want_program COMMAND PACKAGE WHY: makes sure that a program is there, from Debian's
# packages. Without it a run continues and says so; in CI it fails.
want_program() {
  local cmd=$1 package=$2 why=$3
  if command -v "$cmd" >/dev/null; then
    return
  fi
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    apt_install "$package" || true
  fi
  if command -v "$cmd" >/dev/null; then
    return
  fi
  echo "MISSING: $cmd (Debian package $package), needed for $why" >&2
  if [ "${CI:-}" = true ]; then
    exit 1
  fi
}

# apt_install PACKAGE...: installs without starting any service, and without questions.
apt_install() {
  local policy=/usr/sbin/policy-rc.d made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made=1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  local status=$?
  [ -z "$made" ] || rm -f "$policy"
  return $status
}
