# Makes a cluster, keeps it while standard input stays open, and leaves nothing behind. Standard input is a pipe from
# the program that wants the server: however that program ends, the pipe ends with it.
#
# Arguments: folder of the server programs, port, name of the superuser, settings (name=value) ...
# Standard input: a line with the superuser's password; a line "crash" for each time that the server is to be killed and
# started again; the end.
# Standard output: "ready" after each start, or whatever went wrong.

# PIPE: the program may end before it has heard that the server is ready.
trap '' INT TERM HUP QUIT PIPE
umask 077
programs=$1
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
  "$programs/pg_ctl" start -D data -w -t 60 -l log -o "$options" >>log 2>&1
}

if "$programs/initdb" -D data -U "$superuser" --pwfile=password --auth=password --encoding=UTF8 --no-locale --no-sync \
  --no-instructions >log 2>&1 &&
  start; then
  echo ready
  while read -r _; do
    read -r server <data/postmaster.pid
    kill -9 "$server"
    # Its last backends hold the shared memory until they see that it is gone.
    tries=0
    until start; do
      tries=$((tries + 1))
      [ "$tries" -lt 100 ] || break
      sleep 0.1
    done
    echo ready
  done
  "$programs/pg_ctl" stop -D data -m immediate -w >>log 2>&1
else
  cat log
fi
cd /
rm -rf "$folder"
