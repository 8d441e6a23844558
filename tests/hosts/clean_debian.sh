#!/usr/bin/env bash
# Runs README.md's two set-up commands, word for word, in a fresh Debian root file system as an ordinary user.
#
#   tests/hosts/clean_debian.sh [options] bookworm|trixie
#
#   --only demo|tests   one of the two commands
#   --worktree          the files as they lie here instead of a clone of HEAD
#   --constraint TEXT   a line for pip's constraints, such as torch==2.13.0
#   --bind PATH         show this path of the host at the same place, read-only (repeatable): a folder of wheels, pip's configuration
#   --keep              leave the root file system and say where it is
#
# Needs root (chroot, mount), mmdebstrap and git. The environment's PIP_* variables are passed on; nothing else of the host is.
# Each command's time is printed; the exit code is 0 only if both ended well and the demonstration's JSON says what it should.
set -Eeuo pipefail

say() { printf '%s\n' "clean_debian: $*"; }
die() { say "$*" >&2; exit 2; }

only='' worktree='' keep='' suite='' constraints=() binds=()
while [ $# -gt 0 ]; do
    case "$1" in
        --only) only="${2:?}"; shift ;;
        --worktree) worktree=1 ;;
        --constraint) constraints+=("${2:?}"); shift ;;
        --bind) binds+=("$(realpath -e "${2:?}")"); shift ;;
        --keep) keep=1 ;;
        bookworm | trixie) suite="$1" ;;
        *) die "not understood: $1" ;;
    esac
    shift
done
[ -n "$suite" ] || die "which Debian: bookworm (12) or trixie (13)?"
[ "$(id -u)" = 0 ] || die "needs root, for chroot and mounts"
for tool in mmdebstrap git unshare chroot; do command -v "$tool" >/dev/null || die "$tool is not installed"; done

if [ "${CLEAN_DEBIAN_INSIDE:-}" != 1 ]; then
    # Mounts made below vanish with this namespace, whatever happens.
    again=("${BASH_SOURCE[0]}")
    [ -z "$only" ] || again+=(--only "$only")
    [ -z "$worktree" ] || again+=(--worktree)
    [ -z "$keep" ] || again+=(--keep)
    for item in "${constraints[@]}"; do again+=(--constraint "$item"); done
    for item in "${binds[@]}"; do again+=(--bind "$item"); done
    CLEAN_DEBIAN_INSIDE=1 exec unshare --mount --propagation private --pid --fork --kill-child -- "${again[@]}" "$suite"
fi

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
base="$(mktemp -d "${TMPDIR:-/var/tmp}/ktrdr-$suite.XXXXXX")"
root="$base/root"
cleanup() {
    for path in "${binds[@]}" /proc /dev/shm /dev /etc/ssl/certs/ca-certificates.crt; do umount -l "$root$path" 2>/dev/null || true; done
    if [ -n "$keep" ]; then say "kept: $root"; else rm -rf --one-file-system "$base"; fi
}
trap cleanup EXIT

say "making a fresh $suite"
mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates --aptopt='APT::Install-Recommends "0"' "$suite" "$root"

# The few things a running system has: processes, devices, name resolution, the authorities this host trusts.
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" && mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
mount --bind "$(realpath /etc/ssl/certs/ca-certificates.crt)" "$root/etc/ssl/certs/ca-certificates.crt"
for path in "${binds[@]}"; do
    if [ -d "$path" ]; then mkdir -p "$root$path"; else mkdir -p "$root$(dirname "$path")" && : >"$root$path"; fi
    mount --bind "$path" "$root$path"
    mount -o remount,ro,bind "$root$path"
done

chroot "$root" useradd --create-home --shell /bin/bash anna
clone="$root/home/anna/ktrdr-zmq"
if [ -n "$worktree" ]; then
    mkdir "$clone"
    git -C "$repository" ls-files -coz --exclude-standard | tar -C "$repository" --null -T - -cf - --ignore-failed-read | tar -C "$clone" -xf -
else
    git clone --quiet --no-local "$repository" "$clone"
fi
chroot "$root" chown -R anna:anna /home/anna

environment=(HOME=/home/anna USER=anna LOGNAME=anna LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin TERM=dumb)
while IFS= read -r name; do environment+=("$name=${!name}"); done < <(compgen -e PIP_ || true)
if [ ${#constraints[@]} -gt 0 ]; then
    printf '%s\n' "${constraints[@]}" >"$root/home/anna/constraints.txt"
    environment+=(PIP_CONSTRAINT=/home/anna/constraints.txt)
fi
as_user() { chroot --userspec=anna:anna "$root" env -i "${environment[@]}" bash -c "cd ~/ktrdr-zmq && $1"; }

readme="$(grep -E '^python3 -m venv ' "$clone/README.md")"
demo="$(grep -E 'ktrdr demo$' <<<"$readme")" || die "README.md has no command that ends in: ktrdr demo"
tests="$(grep -E '/tox$' <<<"$readme")" || die "README.md has no command that ends in: tox"

attempt() {
    local started=$SECONDS
    say "\$ $2"
    as_user "$2" || { say "FAILED $1 after $((SECONDS - started)) s"; exit 1; }
    say "ok: $1 in $((SECONDS - started)) s"
}

say "$(as_user 'grep PRETTY_NAME /etc/os-release; python3 --version; id -un' | tr '\n' ' ')"
if [ "$only" != tests ]; then
    attempt demo "$demo"
    as_user '.venv/bin/ktrdr demo --json' >"$base/demo.json" || die "ktrdr demo --json failed"
    python3 - "$base/demo.json" <<'PYTHON'
import json, sys
document = json.load(open(sys.argv[1], encoding="utf-8"))
training, backtesting = document["training"], document["backtesting"]
assert training["worker"] != backtesting["worker"], "both jobs ran on one worker"
assert isinstance(backtesting["trades"], int) and training["epochs"] > 0
print("clean_debian: demo --json:", training["worker"], "trained,", backtesting["worker"], "tested,", backtesting["trades"], "trades")
PYTHON
fi
[ "$only" = demo ] || attempt tests "$tests"
say "all well on $suite"
