#!/bin/sh
# One connection of a gRPC server that knows grpc.health.v1.Health/Check: SERVING while /www/serving is there, else NOT_SERVING.
# HTTP/2 by hand: whatever the call is named, a stream that the client has ended gets the answer. Input and output are the socket.
bytes() { dd bs=1 count="$1" 2>/dev/null; }

for _ in 1 2 3 4; do read -r _ || exit 0; done # the client's preface: PRI * HTTP/2.0, SM, and two empty lines
printf '\0\0\0\4\0\0\0\0\0'                    # SETTINGS, none
while set -- $(bytes 9 | od -An -v -tu1) && [ $# = 9 ]; do
    length=$(($1 * 65536 + $2 * 256 + $3)) kind=$4 flags=$5
    stream=$(printf '\\%03o' $(($6 & 127)) "$7" "$8" "$9")
    if [ "$kind" = 6 ] && [ $((flags & 1)) = 0 ]; then # PING: its eight bytes go back
        printf '\0\0\10\6\1\0\0\0\0'
        bytes "$length"
        continue
    fi
    bytes "$length" >/dev/null
    if [ "$kind" = 4 ] && [ $((flags & 1)) = 0 ]; then
        printf '\0\0\0\4\1\0\0\0\0' # SETTINGS acknowledged
    elif [ "$kind" = 0 ] && [ $((flags & 1)) = 1 ]; then
        [ -e /www/serving ] && status='\1' || status='\2'
        # HEADERS (:status 200, content-type), DATA (one message, field 1: the status), HEADERS (grpc-status 0) that end the stream
        printf "\0\0\40\1\4$stream"'\210\0\14content-type\20application/grpc'
        printf "\0\0\7\0\0$stream\0\0\0\0\2\10$status"
        printf "\0\0\17\1\5$stream"'\0\13grpc-status\0010'
    fi
done
