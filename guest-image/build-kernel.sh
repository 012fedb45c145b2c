#!/bin/bash
# Builds the guest kernel from Debian's linux-source and this folder's fragments and patches, once per set of inputs,
# and points build/guest/vmlinux at it. Prints the path of the kernel on stdout and progress on stderr.
#
# usage: build-kernel.sh [--path]
#   --path   say where the kernel for the present inputs is, or would be, and build nothing
#
# HUSK_CACHE   cache directory (default: ${XDG_CACHE_HOME:-$HOME/.cache}/husk)
# TMPDIR       where the source is unpacked and built (default /tmp; needs about 1 GiB while it runs)
# JOBS         parallel compilers (default: number of processors)
set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022
# Nothing of the caller's make or compiler settings may reach the kernel's.
unset MAKEFLAGS MFLAGS MAKELEVEL ARCH CROSS_COMPILE KCFLAGS KAFLAGS KCPPFLAGS KCONFIG_CONFIG KBUILD_OUTPUT O V

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
guest_cache=$(realpath -m "${HUSK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/husk}/guest")
preferred=6.12
needed_mib=1500

step="starting"
log=
work=

say() { echo "guest kernel: $*" >&2; }

die() {
    say "failed while $step: $*"
    exit 1
}

# Runs a command with its output in the log; on failure shows the end of it.
logged() {
    "$@" >>"$log" 2>&1 && return
    say "failed while $step; the last lines of $log:"
    tail -n 20 "$log" >&2
    exit 1
}

cleanup() {
    [ -z "$work" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'say "interrupted while $step"; exit 130' INT
trap 'say "terminated while $step"; exit 143' TERM

find_source() {
    step="looking for the kernel source"
    source_tar=/usr/src/linux-source-$preferred.tar.xz
    [ -e "$source_tar" ] && return
    source_tar=$(printf '%s\n' /usr/src/linux-source-*.tar.xz | sort -V | tail -n 1)
    [ -e "$source_tar" ] || die "no /usr/src/linux-source-*.tar.xz; install the package linux-source-$preferred (or linux-source)"
    say "no linux-source-$preferred here; using $(basename "$source_tar" .tar.xz), for which the fragments are untested"
}

check_tools() {
    step="checking the build tools"
    [ "$(uname -m)" = x86_64 ] || die "this machine is $(uname -m); the guest kernel is built on x86_64 only"
    local tool missing=
    for tool in gcc make ld strip readelf flex bison bc xz tar patch flock sha256sum perl; do
        command -v "$tool" >/dev/null || missing+=" $tool"
    done
    [ -e /usr/include/gelf.h ] || missing+=" gelf.h (package libelf-dev)"
    [ -z "$missing" ] || die "missing:$missing"
}

# Everything the bytes of the kernel depend on, one per line.
inputs() {
    local package
    package=$(basename "$source_tar" .tar.xz)
    dpkg-query -W -f '${Package} ${Version}\n' "$package" 2>/dev/null || sha256sum <"$source_tar"
    gcc --version | head -n 1
    ld --version | head -n 1
    (cd "$here" && sha256sum build-kernel.sh kernel/compact.py kernel/fragments/*.config kernel/patches/*.patch)
}

# Fails unless every line of every fragment is what the configuration says in the end.
check_config() {
    local line option bad=
    while read -r line; do
        case $line in
            CONFIG_*)
                option=${line%%=*}
                grep -qxF -- "$line" .config || bad+="  wanted $line, got $(grep -E "^$option=" .config || echo "$option unset")"$'\n'
                ;;
            '# CONFIG_'*' is not set')
                option=${line#\# } option=${option%% *}
                ! grep -q "^$option=" .config || bad+="  wanted $option unset, got $(grep "^$option=" .config)"$'\n'
                ;;
        esac
    done < <(cat "$here"/kernel/fragments/*.config)
    [ -z "$bad" ] && return
    say "failed while $step; lines of the fragments that did not take effect:"
    printf '%s' "$bad" >&2
    exit 1
}

# Leaves out what no configuration of ours compiles, more than half of the files: documentation, other architectures,
# and the code (not the Kconfig files, which are read) of drivers that a virtual machine has no device for.
unpack() {
    local driver exclude=()
    for driver in gpu media staging infiniband scsi iio usb net/wireless net/ethernet; do
        exclude+=(--exclude="linux-source-*/drivers/$driver/*.[ch]")
    done
    logged tar -xJf "$source_tar" -C "$work" --strip-components=1 --anchored --wildcards --wildcards-match-slash \
        --exclude='linux-source-*/Documentation/*/*' --exclude='linux-source-*/sound/*.[ch]' \
        --exclude='linux-source-*/arch/[a-wyz]*/*.[chS]' --exclude='linux-source-*/arch/[a-wyz]*/*.dts*' \
        --exclude='linux-source-*/tools/testing' --exclude='linux-source-*/tools/perf' "${exclude[@]}"
}

# husk works without the patches, if slower or less surely, so one that a newer source refuses is left out.
apply_patches() {
    local patch
    for patch in "$here"/kernel/patches/*.patch; do
        if patch -p1 -F0 --dry-run <"$patch" >>"$log" 2>&1; then
            logged patch -p1 -F0 -i "$patch"
        else
            say "$(basename "$patch") does not fit this source; left out (its first lines say what that costs)"
        fi
    done
}

configure() {
    logged make tinyconfig
    logged scripts/kconfig/merge_config.sh -m .config "$here"/kernel/fragments/*.config
    logged make olddefconfig
    check_config
}

# Writes make's output to the log and the number of objects so far to the terminal, or now and then to a file.
count_objects() {
    local line count=0
    while IFS= read -r line; do
        printf '%s\n' "$line" >&3
        case $line in
            '  CC '* | '  AS '*) count=$((count + 1)) ;;
            *) continue ;;
        esac
        if [ -t 2 ]; then
            printf '\rguest kernel: compiled %d objects' "$count" >&2
        elif [ $((count % 250)) = 0 ]; then
            say "compiled $count objects"
        fi
    done 3>>"$log"
    [ ! -t 2 ] || echo >&2
}

compile() {
    # Neither the directory nor the clock nor the user may leave a trace in the kernel.
    if ! make -j"${JOBS:-$(nproc)}" vmlinux \
        KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970' KBUILD_BUILD_VERSION=1 \
        KBUILD_BUILD_USER=husk KBUILD_BUILD_HOST=husk \
        KCFLAGS="-ffile-prefix-map=$PWD=." KAFLAGS="-ffile-prefix-map=$PWD=." 2>&1 | count_objects; then
        say "failed while $step; the last lines of $log:"
        tail -n 20 "$log" >&2
        exit 1
    fi
}

# Puts the finished files into the cache in one rename.
install_kernel() {
    local new
    new=$(mktemp -d "$guest_cache/.new.XXXXXX")
    logged strip --strip-all --remove-section=.comment vmlinux
    readelf -nW vmlinux 2>/dev/null | grep Xen >/dev/null || die "the kernel has no PVH entry note"
    python3 "$here/kernel/compact.py" vmlinux "$new/vmlinux"
    cp System.map "$new/"
    cp .config "$new/config"
    printf '%s\n' "$inputs" >"$new/inputs"
    chmod 755 "$new"
    chmod 644 "$new"/*
    sync -f "$new"
    mv -T "$new" "$guest_cache/$key"
}

link_kernel() {
    mkdir -p "$root/build/guest"
    ln -sfn "$guest_cache/$key/vmlinux" "$root/build/guest/.vmlinux.$$"
    mv -T "$root/build/guest/.vmlinux.$$" "$root/build/guest/vmlinux"
}

build() {
    local start=$SECONDS free
    log=$guest_cache/$key.log
    : >"$log"
    work=$(mktemp -d "${TMPDIR:-/tmp}/husk-kernel.XXXXXX")
    free=$(($(stat -f -c '%a * %S' "$work") / 1048576))
    [ "$free" -ge $needed_mib ] || die "${TMPDIR:-/tmp} has $free MiB free and the build needs $needed_mib; set TMPDIR"

    step="unpacking $(basename "$source_tar")"
    say "[1/4] $step into $work"
    unpack
    cd "$work"
    step="patching and configuring"
    say "[2/4] $step"
    apply_patches
    configure
    step="compiling"
    say "[3/4] $step (a few minutes, once; log in $log)"
    compile
    step="installing"
    say "[4/4] $step"
    install_kernel
    cd "$here"
    rm -f "$log"
    say "built in $((SECONDS - start)) s, $(($(stat -c %s "$guest_cache/$key/vmlinux") / 1024)) KiB"
}

find_source
step="identifying the inputs"
command -v gcc >/dev/null || die "gcc is not installed"
inputs=$(inputs)
key=$(printf '%s\n' "$inputs" | sha256sum | cut -c 1-16)
case ${1-} in
    --path)
        echo "$guest_cache/$key/vmlinux"
        exit
        ;;
    '') ;;
    *)
        echo "usage: build-kernel.sh [--path]" >&2
        exit 2
        ;;
esac

if [ ! -e "$guest_cache/$key/vmlinux" ]; then
    check_tools
    step="waiting for another build"
    mkdir -p "$guest_cache"
    exec 9>"$guest_cache/$key.lock"
    if ! flock -n 9; then
        say "another build of the same kernel is running; waiting for it"
        flock 9
    fi
    [ -e "$guest_cache/$key/vmlinux" ] || build
    exec 9>&-
fi
link_kernel
echo "$guest_cache/$key/vmlinux"
