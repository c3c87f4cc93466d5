# Creates a cluster, runs it while standard input is open, and removes it. Standard input is a pipe from the program
# that uses the server: however that program ends, the pipe closes.
#
# Arguments: folder of the server programs, port, name of the superuser, settings (name=value) ...
# Standard input: one line with the superuser's password, then a line "crash" for each time that the server is to be
# killed and started again.
# Standard output: "ready" after each start, or the log of a failed one.

# PIPE: the program may end before it has read that the server is ready.
trap '' INT TERM HUP QUIT PIPE
umask 077
binaries=$1
port=$2
superuser=$3
shift 3
read -r password

folder=$(mktemp -d "${TMPDIR:-/tmp}/sparc-postgresql-XXXXXX") || exit 1
cd "$folder" || exit 1
printf '%s\n' "$password" >password

options="-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$folder"
for setting in "$@"; do
  options="$options -c $setting"
done

start() {
  "$binaries/pg_ctl" start -D data -w -t 60 -l log -o "$options" >>log 2>&1
}

if "$binaries/initdb" -D data -U "$superuser" --pwfile=password --auth=password --encoding=UTF8 --no-locale --no-sync \
  --no-instructions >log 2>&1 &&
  start; then
  echo ready
  while read -r _; do
    read -r server <data/postmaster.pid
    kill -9 "$server"
    # Its last backends keep the shared memory until they notice that it is gone.
    tries=0
    until start; do
      tries=$((tries + 1))
      [ "$tries" -lt 100 ] || break
      sleep 0.1
    done
    echo ready
  done
  "$binaries/pg_ctl" stop -D data -m immediate -w >>log 2>&1
else
  cat log
fi
cd /
rm -rf "$folder"
