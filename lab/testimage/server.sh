#!/bin/sh
# The test container's first process: a web server that misbehaves on demand.
# Environment: PORT (8080), VERSION, READY=no (never ready), READY_AFTER (seconds), IGNORE_TERM=yes,
#              EXIT_CODE (ends with it), EXIT_AFTER (seconds until then, 0), GRPC_PORT (serves grpc.health.v1 there).
# Pages: / (version and host name), /ready and /live (200 or 404), /cgi-bin/set?ready=no|live=no|serving=no|…=yes|exit=CODE
[ "$IGNORE_TERM" = yes ] && trap '' TERM || trap 'exit 0' TERM INT
if [ -n "$EXIT_CODE" ] && [ -z "$EXIT_AFTER" ]; then
    exit "$EXIT_CODE"
fi
cd /www
echo yes >live
echo yes >serving
if [ -n "$READY_AFTER" ]; then
    (sleep "$READY_AFTER"; echo yes >ready) &
elif [ "$READY" != no ]; then
    echo yes >ready
fi
if [ -n "$EXIT_CODE" ]; then
    (sleep "$EXIT_AFTER"; exec /www/cgi-bin/set "exit=$EXIT_CODE") &
fi
if [ -n "$GRPC_PORT" ]; then
    nc -ll -p "$GRPC_PORT" -e /grpc.sh &
fi
httpd -f -p "${PORT:-8080}" -h /www &
echo $! >/run/httpd.pid
echo "serving $VERSION on port ${PORT:-8080}"
wait $!
exit "$(cat /run/exit 2>/dev/null || echo 1)"
