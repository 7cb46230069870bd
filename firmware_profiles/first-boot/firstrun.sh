#!/bin/sh
# Once, before the network is up, as the kernel's command line says: name, user, Wi-Fi and the service that joins.
# It always ends with 0: the boot would stop otherwise. What `edgeflock flash` was told is in edgeflock/settings.sh.
root=${EDGEFLOCK_ROOT:-}
boot=$root/boot/firmware
card=$boot/edgeflock
units=$root/etc/systemd/system
. "$card/settings.sh"

echo "$host_name" > "$root/etc/hostname"
sed -i '/^127\.0\.1\.1/d' "$root/etc/hosts"
printf '127.0.1.1\t%s\n' "$host_name" >> "$root/etc/hosts"

if [ -n "$user" ]; then
    "$root/usr/lib/userconf-pi/userconf" "$user" "$password_hash"
fi
if [ -e "$card/authorized_keys" ]; then
    install -d -m 0700 "$root/home/$user/.ssh"
    install -m 0600 "$card/authorized_keys" "$root/home/$user/.ssh/authorized_keys"
    chown -R "$user:" "$root/home/$user/.ssh"
    mkdir -p "$units/multi-user.target.wants"
    ln -sf /lib/systemd/system/ssh.service "$units/multi-user.target.wants/ssh.service"
    ln -sf /lib/systemd/system/ssh.service "$units/sshd.service"
fi
if [ -e "$card/wifi.nmconnection" ]; then
    connections=$root/etc/NetworkManager/system-connections
    install -D -m 0600 "$card/wifi.nmconnection" "$connections/edgeflock.nmconnection" && rm -f "$card/wifi.nmconnection"
    for state in "$root"/var/lib/systemd/rfkill/*:wlan; do
        [ ! -e "$state" ] || echo 0 > "$state"
    done
fi

mkdir -p "$units/multi-user.target.wants"
cp "$card/first-boot.service" "$units/edgeflock-first-boot.service"
ln -sf /etc/systemd/system/edgeflock-first-boot.service "$units/multi-user.target.wants/edgeflock-first-boot.service"

sed -i 's| systemd\.run[^ ]*||g; s| systemd\.unit=kernel-command-line\.target||g' "$boot/cmdline.txt"
rm -f "$boot/firstrun.sh"
exit 0
