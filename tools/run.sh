#!/bin/sh
# run.sh <setup target> <script.ts> [argument...]: sets up what is missing, then becomes the script.
# The script replaces this shell, so signals reach it and its exit status is the command's.
cd "$(dirname "$0")/.." || exit
target=$1
shift
node tools/setup.mjs "$target" || exit
PATH=$PWD/build/bin:$PATH
export PATH
exec build/bin/node "$@"
