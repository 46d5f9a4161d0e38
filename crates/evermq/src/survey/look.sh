# What a host has to say about itself, in sections. Reads only; needs nothing that a bare host does not have.
# Set before: VIP, STORE, CERTIFICATE, NAMES.
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
section() { printf '\n== %s\n' "$1"; }
section clock; date +%s.%N
section name; hostname 2>/dev/null || uname -n
section kernel; uname -r
section machine; uname -m
section user; id -u
section os; cat /etc/os-release 2>/dev/null
section systemd; systemctl --version 2>/dev/null | head -n 1
section listeners; ss -Hlntup 2>/dev/null || { cat /proc/net/tcp /proc/net/tcp6 2>/dev/null; }
section programs; ps -e -o comm= 2>/dev/null | sort -u
section addresses; ip -o address show 2>/dev/null
section firewalld; firewall-cmd --state >/dev/null 2>&1 && firewall-cmd --list-all 2>/dev/null
section nftables; nft list ruleset 2>/dev/null
section iptables; iptables-save 2>/dev/null
section names; for name in $NAMES; do getent ahostsv4 "$name" 2>/dev/null | awk -v n="$name" '$2 == "STREAM" { print n, $1 }'; done
section active
for unit in systemd-networkd NetworkManager; do systemctl is-active --quiet $unit 2>/dev/null && echo $unit; done
section keep
cat /etc/systemd/network/*.network /etc/systemd/network/*.network.d/*.conf /run/systemd/network/*.network /usr/lib/systemd/network/*.network 2>/dev/null | grep -i '^ *KeepConfiguration'
section limits
cat /proc/sys/fs/nr_open /proc/sys/fs/file-max /proc/sys/net/core/somaxconn 2>/dev/null
section disk; df -Pk "$STORE" 2>/dev/null || df -Pk /var/lib 2>/dev/null
section certificate; cat "$CERTIFICATE" 2>/dev/null
section vip
if [ -n "$VIP" ] && ! ip -o address show 2>/dev/null | grep -qF " $VIP/"; then
    ping -c 1 -W 1 "$VIP" >/dev/null 2>&1
    ip neighbour show "$VIP" 2>/dev/null
fi
section end
