# What a host has of EverMQ. Reads only. Before it: FILES, and what `version` is.
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
section() { printf '\n== %s\n' "$1"; }
section machine; uname -m
section user; id -u
section tools; for tool in dpkg rpm tar systemctl systemd-sysusers; do command -v $tool >/dev/null 2>&1 && echo $tool; done
section os; cat /etc/os-release 2>/dev/null
section version; version
section digests
for file in $FILES; do [ -f "$file" ] && sha256sum "$file" 2>/dev/null; done
section units
for name in vip lb broker; do
    process=$(systemctl show --property=MainPID evermq-$name 2>/dev/null | cut -d= -f2)
    old=
    [ "${process:-0}" != 0 ] && case $(readlink "/proc/$process/exe") in *' (deleted)') old=old ;; esac
    echo "$name $(systemctl is-active evermq-$name 2>/dev/null) $(systemctl is-enabled evermq-$name 2>/dev/null) $old"
done
section addresses; ip -o address show 2>/dev/null
section previous; cat /var/lib/evermq-deploy/previous/version 2>/dev/null
section end
