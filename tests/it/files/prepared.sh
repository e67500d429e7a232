#!/bin/sh
# Starts the program that CODEXD_TEST_PROGRAM names after the command in CODEXD_TEST_PREPARE.
eval "$CODEXD_TEST_PREPARE"
exec "$CODEXD_TEST_PROGRAM" "$@"
