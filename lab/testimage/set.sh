#!/bin/sh
# As a page: /cgi-bin/set?ready=no. By exec: /www/cgi-bin/set ready=no
change=${1:-$QUERY_STRING}
[ -n "$1" ] || printf 'Content-Type: text/plain\r\n\r\n'
case $change in
ready=yes | live=yes | serving=yes) echo yes >"/www/${change%%=*}" ;;
ready=no | live=no | serving=no) rm -f "/www/${change%%=*}" ;;
exit=*)
    echo "${change#exit=}" >/run/exit
    kill "$(cat /run/httpd.pid)"
    ;;
*)
    echo "unknown: $change"
    exit 1
    ;;
esac
echo "$change"
