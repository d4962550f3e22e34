# SPDX-License-Identifier: MIT
"""Writes build_id.h: a hash of the library's sources and of how they are compiled.

    build_id.py OUTPUT DEPFILE ROOT WORD...

WORDs: compiler, version, options, ... Times measured with one build say nothing of another.
The same sources and compiler give the same identity, wherever and whenever they are built.
"""
import hashlib
import pathlib
import sys

output, depfile, root, *words = sys.argv[1:]
root = pathlib.Path(root)
files = sorted(f for folder in ('include', 'kernels', 'dispatch')
               for f in (root / folder).rglob('*.[ch]'))

digest = hashlib.sha256('\0'.join(words).encode())
for file in files:
    digest.update(file.relative_to(root).as_posix().encode() + b'\0')
    digest.update(hashlib.sha256(file.read_bytes()).digest())
with open(output, 'w', encoding='ascii') as out:
    out.write(f'#define BALLAST_BUILD_ID "{digest.hexdigest()[:16]}"\n')
with open(depfile, 'w', encoding='utf-8') as out:
    escaped = (str(f).replace(' ', '\\ ') for f in files)
    out.write(f'{output}: ' + ' '.join(escaped) + '\n')
