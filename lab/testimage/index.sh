#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\nversion=%s hostname=%s\n' "$VERSION" "$(hostname)"
