#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# What a user of an installed Ballast gets: installs a build directory into a temporary tree, looks
# at the library there, and builds and runs every example against it.
set -euo pipefail

readonly skipped=77
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly here source=${here%/*} examples=${here%/*}/examples

usage() {
  cat <<'END'
usage: tests/installed.sh BUILD

BUILD is a Meson build directory of Ballast. Prints one line of TAP per check and exits with 1 where
one failed. Everything is written to a temporary directory.

  CC, CXX   the compilers of the examples (default cc, c++)
  MESON     the Meson of the subproject check (default meson)
END
}

case ${1:-} in
  --help | -h) usage && exit 0 ;;
  '' | -*) usage >&2 && exit 2 ;;
esac
[[ $# -eq 1 && -f $1/build.ninja ]] || { echo "installed.sh: no build directory: $1" >&2; exit 2; }
build=$(cd -- "$1" && pwd)
readonly build cc=${CC:-cc} cxx=${CXX:-c++} meson=${MESON:-meson}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/ballast-installed.XXXXXX")
readonly tmp root=$tmp/root
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- reporting -------------------------------------------------------------------------------------

checks=0 failures=0

# Runs a function as one check. It may say why it fails, or return $skipped after saying why.
check() { # NAME FUNCTION [ARG...]
  local name=$1 status=0
  shift
  set +e
  (
    set -e
    "$@"
  ) >"$tmp/log" 2>&1 </dev/null
  status=$?
  set -e
  checks=$((checks + 1))
  case $status in
    0) echo "ok $checks - $name" ;;
    "$skipped") echo "ok $checks - $name # SKIP $(tail -n 1 "$tmp/log")" ;;
    *)
      echo "not ok $checks - $name"
      sed 's/^/# /' "$tmp/log"
      failures=$((failures + 1))
      ;;
  esac
}

skip() { # REASON
  echo "$1"
  exit "$skipped"
}

# The lines that match; none is no failure.
lines() { # GREP-ARG...
  grep "$@" || true
}

# Fails, and shows them, where there are lines on standard input. (`! grep` would not end a check:
# `set -e` takes no notice of a command behind an exclamation mark.)
none() {
  local found
  found=$(cat)
  [[ -z $found ]] || { printf 'unwanted:\n%s\n' "$found" && return 1; }
}

need() { command -v "$1" >/dev/null 2>&1 || skip "$1 is missing"; }

# ---- what was installed ----------------------------------------------------------------------------

install_tree() {
  DESTDIR=$root ninja -C "$build" install
}

# The tree as if its prefix were where it is: what a move of it needs, and no more.
find_tree() {
  pc=$(find "$root" -name ballast.pc)
  libdir=${pc%/pkgconfig/ballast.pc}
  shared=$libdir/libballast.so
  archive=$libdir/libballast.a
  local prefix
  prefix=$(sed -n 's/^prefix=//p' "$pc")
  cp "$pc" "$tmp/ballast.pc.installed"
  sed -i "s|^prefix=.*|prefix=$root$prefix|" "$pc"
  header=$root$prefix/include/ballast/ballast.h
  export PKG_CONFIG_PATH=$libdir/pkgconfig LD_LIBRARY_PATH=$libdir
}

check_files() {
  local file
  for file in "$shared" "$shared.0" "$archive" "$header"; do
    [[ -f $file ]] || { echo "missing: $file" && return 1; }
  done
  [[ $(find "$root" -name '*.h' | wc -l) -eq 1 ]] || { find "$root" -name '*.h' && return 1; }
}

header_version() {
  awk '/#define BALLAST_VERSION_(MAJOR|MINOR|PATCH)/ { printf "%s%s", sep, $3; sep = "." }' "$header"
}

check_pkg_config() {
  cat "$tmp/ballast.pc.installed"
  [[ $(pkg-config --modversion ballast) == "$(header_version)" ]]
  [[ $(grep -c '^Cflags: -I${includedir}$' "$pc") -eq 1 ]]
  [[ $(grep -c '^Libs: -L${libdir} -lballast$' "$pc") -eq 1 ]]
  lines -E '^(Requires|Libs.private):' "$pc" | lines -vx 'Libs.private: -lm' | none
  lines '^Requires.private:' "$pc" | lines -vx 'Requires.private: sleef' | none
  lines -F -e "$source" -e "$build" "$tmp/ballast.pc.installed" | none
}

check_header() { # COMPILER STANDARD LANGUAGE
  need "$1"
  echo '#include <ballast/ballast.h>' |
    "$1" -x "$3" "-std=$2" -Wall -Wextra -pedantic -Werror -fsyntax-only -I"${header%/*/*}" -
}

# ---- the shared library and the archive ------------------------------------------------------------

check_soname() {
  local major=0
  readelf -dW "$shared" | grep -F "Library soname: [libballast.so.$major]"
  [[ $(basename "$(readlink -f "$shared")") == "libballast.so.$(header_version)" ]]
}

# The functions that the header declares, and nothing else.
check_symbols() {
  "$cc" -E -P -x c "$header" | tr '\n' ' ' | grep -o 'visibility("default")))[^;(]*(' |
    sed 's/.*[ *]\(ballast_[a-z0-9_]*\) *($/\1/' | sort >"$tmp/declared"
  nm -D --defined-only "$shared" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' |
    sort >"$tmp/exported"
  [[ -s $tmp/declared ]]
  lines -v '^ballast_[a-z]' "$tmp/exported" | none
  diff "$tmp/declared" "$tmp/exported"
}

check_symbolic() {
  readelf -dW "$shared" | grep -E '\(SYMBOLIC\)|FLAGS.*SYMBOLIC'
}

check_needed() {
  readelf -dW "$shared" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' >"$tmp/needed"
  lines -vE '^(libc|libm|libsleef|ld-linux-[a-z0-9_-]*)\.so(\.[0-9]+)*$' "$tmp/needed" | none
  readelf -dW "$shared" | lines -E 'TEXTREL|RPATH|RUNPATH' | none
}

check_stack() {
  readelf -lW "$shared" | grep GNU_STACK | tee "$tmp/stack"
  grep -q ' RW ' "$tmp/stack"
  local objects notes
  objects=$(ar t "$archive" | wc -l)
  notes=$(readelf -SW "$archive" | grep -c '\.note\.GNU-stack')
  [[ $objects -eq $notes ]] || { echo "$objects objects, $notes with a stack note" && return 1; }
  readelf -SW "$archive" | lines -E '\.note\.GNU-stack.* [WA]*X' | none
}

# The compiler's frame_dummy is the one entry of the shared library; the archive has none.
check_constructors() {
  readelf -SW "$archive" | lines -E '\.(preinit_array|init_array|fini_array|ctors|dtors)' | none
  readelf -SW "$shared" | lines -E '\.(preinit_array|ctors|dtors)' | none
  readelf -dW "$shared" | lines INIT_ARRAYSZ | lines -vE ' 8 \(bytes\)' | none
}

check_size() {
  cp "$(readlink -f "$shared")" "$tmp/stripped"
  strip --strip-debug "$tmp/stripped"
  local size
  size=$(stat -c %s "$tmp/stripped")
  echo "$size bytes"
  [[ $size -lt 2000000 ]]
}

check_archive_symbols() {
  nm -g --defined-only "$archive" | awk 'NF == 3 { print $3 }' | lines -v '^ballast_' | none
}

# ---- the examples ----------------------------------------------------------------------------------

# Links the shared library, or the archive: then the program must not need the shared one.
example() { # shared|static COMPILER SOURCE [FLAG...]
  local kind=$1 compiler=$2 file=$3 flags program
  shift 3
  program=$tmp/$kind-${file%.*}
  need "$compiler"
  flags=$(pkg-config --cflags --libs ballast)
  [[ $kind == shared ]] ||
    flags=$(pkg-config --static --cflags --libs ballast | sed 's/-lballast/-l:libballast.a/')
  # shellcheck disable=SC2086  # flags are words
  (cd "$examples" && "$compiler" -O2 -Wall -Wextra -Werror -o "$program" "$file" "$@" $flags)
  readelf -dW "$program" | grep -F libballast >"$tmp/needed" || true
  [[ $kind == shared && -s $tmp/needed || $kind == static && ! -s $tmp/needed ]] ||
    { echo "not linked as $kind" && return 1; }
}

run_example() { # shared|static COMPILER SOURCE [FLAG...]
  example "$@"
  cd "$tmp" && "$tmp/$1-${3%.*}"
}

check_openmp() { # shared|static
  echo '#include <omp.h>' | "$cc" -fopenmp -fsyntax-only -x c - || skip "$cc has no OpenMP"
  OMP_NUM_THREADS=3 run_example "$1" "$cc" openmp.c -std=c11 -fopenmp
}

readonly posix=-D_POSIX_C_SOURCE=200809L

check_class_balanced() { # shared|static
  example "$1" "$cc" class_balanced.c plain_c.c ../tools/npy.c -std=c11 "$posix" -lm
  local rows=0
  [[ $1 == static ]] || rows=16
  "$tmp/$1-class_balanced" --rows $rows --grad "$tmp/grad.npy" "$examples/data"
  [[ $(stat -c %s "$tmp/grad.npy") -eq $((128 + 297 * 10 * 4)) ]]
}

# Class weights must pay: at least three points less error on the balanced test set.
check_train_digits() { # shared|static
  example "$1" "$cc" train_digits.c ../tools/npy.c -std=c11 "$posix" -lm
  "$tmp/$1-train_digits" "$examples/data" >"$tmp/table"
  cat "$tmp/table"
  awk '$1 == "all" { found = 1; gain = $3 - $6 } END { exit !(found && gain >= 3) }' "$tmp/table"
}

# ---- Ballast inside another project ----------------------------------------------------------------

# The scalar kernels only: what is tested is the project file, and building all takes a minute.
check_subproject() {
  need "$meson"
  mkdir -p "$tmp/host/subprojects"
  ln -s "$source" "$tmp/host/subprojects/ballast"
  cp "$examples/cross_entropy.c" "$tmp/host/host.c"
  cat >"$tmp/host/meson.build" <<'END'
project('host', 'c')
ballast = dependency('ballast', fallback: 'ballast', default_options: ['examples=false',
  'tests=disabled', 'tool=disabled', 'avx2=disabled', 'avx512=disabled', 'neon=disabled',
  'f64=disabled'])
executable('host', 'host.c', dependencies: ballast)
END
  "$meson" setup --wrap-mode=forcefallback "$tmp/host/build" "$tmp/host"
  ninja -C "$tmp/host/build" host
  env -u LD_LIBRARY_PATH "$tmp/host/build/host"
}

# ---- the whole -------------------------------------------------------------------------------------

# Sanitizers and other machines' libraries do not link into plain programs of this one.
plain_build() {
  local library
  library=$(find "$build" -maxdepth 2 -name 'libballast.so.*.*' -type f | head -n 1)
  [[ -n $library ]] || skip "$build is not built"
  nm -D "$library" | lines -E '__(asan|tsan|msan|ubsan)_' | none >/dev/null ||
    skip "a build with sanitizers"
  echo 'int main(void) { return 0; }' | "$cc" -x c -o "$tmp/probe" - || skip "$cc makes no programs"
  [[ $(readelf -hW "$library" | grep Machine:) == "$(readelf -hW "$tmp/probe" | grep Machine:)" ]] ||
    skip "a build for another machine"
}

for tool in ninja pkg-config readelf nm; do
  command -v $tool >/dev/null 2>&1 || { echo "1..0 # SKIP $tool is missing" && exit 0; }
done
reason=$(plain_build 2>/dev/null) || { echo "1..0 # SKIP $reason" && exit 0; }

check "meson install" install_tree
[[ $failures -eq 0 ]] || { echo "1..$checks" && exit 1; }
find_tree
check "installed files" check_files
check "pkg-config file" check_pkg_config
check "header as C11" check_header "$cc" c11 c
check "header as C++17" check_header "$cxx" c++17 c++
check "header as C11, clang" check_header clang c11 c
check "header as C++17, clang" check_header clang++ c++17 c++
check "soname" check_soname
check "exported symbols" check_symbols
check "bound to itself (-Bsymbolic)" check_symbolic
check "libraries that it needs" check_needed
check "no executable stack" check_stack
check "no constructors" check_constructors
check "shared library below 2 MB" check_size
check "symbols of the archive" check_archive_symbols
for kind in shared static; do
  check "cross_entropy.c, $kind" run_example $kind "$cc" cross_entropy.c -std=c11 -pedantic
  check "cross_entropy.cpp, $kind" run_example $kind "$cxx" cross_entropy.cpp -std=c++17 -pedantic
  check "embed.c, $kind" run_example $kind "$cc" embed.c -std=c11 -pedantic -pthread
  check "openmp.c, $kind" check_openmp $kind
  check "class_balanced.c, $kind" check_class_balanced $kind
  check "train_digits.c, $kind" check_train_digits $kind
done
check "Meson subproject" check_subproject
echo "1..$checks"
[[ $failures -eq 0 ]]
