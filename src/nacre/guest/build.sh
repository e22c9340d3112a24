#!/bin/bash
# Builds the tiny guest from the distribution's packages into the folder $1. No root, no mounts, no loop devices.
# Lines that begin with "* " are for the user.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C DEBIAN_FRONTEND=noninteractive
out=$(realpath "$1"); here=$(dirname "$(realpath "$0")")
work=$(mktemp -d "${TMPDIR:-/tmp}/nacre-guest.XXXXXX"); trap 'rm -rf "$work"' EXIT
root_mb=64; boot_mb=48

missing=
for tool in apt-get dpkg-deb cpio gzip mke2fs qemu-img syslinux mformat mcopy sfdisk depmod; do
  command -v "$tool" >/dev/null || missing="$missing $tool"
done
[ -z "$missing" ] || { echo "missing programs:$missing (apt-get install cpio e2fsprogs qemu-utils syslinux syslinux-common mtools fdisk kmod)"; exit 1; }
mbr=/usr/lib/syslinux/mbr/mbr.bin
[ -e "$mbr" ] || { echo "missing mbr.bin (apt-get install syslinux-common)"; exit 1; }

# The smallest kernel with virtio: Debian calls it cloud, Ubuntu kvm or virtual.
kernel_package() {
  local meta name
  for meta in linux-image-cloud-amd64 linux-image-virtual linux-image-kvm linux-image-generic linux-image-amd64; do
    name=$(apt-cache depends "$meta" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\).*/\1/p' | head -1)
    [ -z "$name" ] || { echo "$name"; return; }
  done
  echo "no kernel package is known to apt; run apt-get update" >&2; return 1
}

# Every package that the programs of the guest need, as the distribution itself says (libgcc's and the like included).
closure() {
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances "$@" | sed -n 's/^\([a-z0-9][a-z0-9.+-]*\)\(:amd64\)\?$/\1/p' | sort -u |
    grep -E '^(lib|busybox-static$|dropbear-bin$|e2fsprogs$|qemu-guest-agent$|zlib1g$)' |
    grep -vE '^(libc-bin|libc6-dev|libgcc-s1|libpam|libsystemd|libdebconf|libtext|liblocale|libperl)' || true
}

echo "* finding packages"
kernel=$(kernel_package)
packages="$kernel $(closure busybox-static dropbear-bin e2fsprogs qemu-guest-agent)"
case $kernel in linux-image-[0-9]*-generic) packages="$packages ${kernel/linux-image/linux-modules}";; esac
mkdir "$work/debs" "$work/packages"; cd "$work/debs"
echo "* downloading $(wc -w <<<"$packages") packages"
get() { apt-get -o APT::Sandbox::User=root -qq download "$@" 2>&1; }
# All at once is fast; one by one passes over a name that this release only pretends to have.
get $packages || for package in $packages; do
  get "$package" || { [ "$package" != "$kernel" ] && echo "left out: $package"; }
done
echo "* unpacking"
for deb in *.deb; do dpkg-deb -x "$deb" "$work/packages"; done
from=$work/packages
release=$(find "$from" -maxdepth 4 -mindepth 3 -path '*lib/modules/*' -type d | grep 'modules/[^/]*$' | head -1); version=${release##*/}
image=$(find "$from/boot" -name 'vmlinuz-*' | head -1)
[ -n "$version" ] && [ -n "$image" ] || { echo "$kernel has no kernel in it"; exit 1; }

echo "* making the system"
tree=$work/tree
mkdir -p "$tree"/{bin,sbin,dev,etc/{acpi/PWRF,dropbear,udhcpc},lib/drivers,mnt,proc,root/.ssh,run,sys,system,tmp,usr/{bin,sbin},var/log,www}
mkdir -p "$tree/usr/share/udhcpc"; chmod 700 "$tree/root" "$tree/root/.ssh"; chmod 1777 "$tree/tmp"
program() { find "$from" -type f -path "*bin/$1" | head -1; }
install -m 755 "$(program busybox)" "$tree/bin/busybox"
"$tree/bin/busybox" --list | while read -r name; do [ -e "$tree/bin/$name" ] || ln -s busybox "$tree/bin/$name"; done
ln -s ../bin/busybox "$tree/sbin/init"

# A program with every library that it asks for, found among the unpacked packages.
declare -A have=()
libraries() {
  local name file
  for name in $(LD_TRACE= objdump -p "$1" 2>/dev/null | sed -n 's/^ *NEEDED *//p' || true); do
    [ -z "${have[$name]:-}" ] || continue
    have[$name]=1
    file=$(find "$from" \( -type f -o -type l \) -path "*/x86_64-linux-gnu/$name" | head -1)
    [ -n "$file" ] || { echo "library $name is in none of the packages"; exit 1; }
    mkdir -p "$tree/lib/x86_64-linux-gnu"; cp -L "$file" "$tree/lib/x86_64-linux-gnu/$name"; libraries "$file"
  done
}
command -v objdump >/dev/null || objdump() { python3 "$here/needed.py" "$2"; }
for name in dropbear dropbearkey dbclient resize2fs qemu-ga; do
  file=$(program "$name") || true
  [ -n "$file" ] || { [ "$name" = qemu-ga ] && continue; echo "$name is in none of the packages"; exit 1; }
  install -m 755 "$file" "$tree/usr/sbin/$name"; libraries "$file"
done
mkdir -p "$tree/lib64"
cp -L "$(find "$from" -name 'ld-linux-x86-64.so.2' -path '*x86_64-linux-gnu*' | head -1)" "$tree/lib64/ld-linux-x86-64.so.2"

# Drivers in the order in which they must be loaded. A driver that is built in, or not there, is left out.
mkdir -p "$work/modules/lib"; mkdir "$work/modules/lib/modules"; ln -s "$release" "$work/modules/lib/modules/$version"
depmod -b "$work/modules" "$version" 2>/dev/null || true
: > "$tree/lib/drivers/order"
for name in virtio_pci virtio_blk virtio_net virtio_scsi sd_mod sr_mod ata_piix isofs virtio_console virtio-rng \
    virtio_balloon button evdev e1000 8139cp; do
  line=$(grep -E "(^|/)$name\.ko[^ :]*:" "$release/modules.dep" | head -1) || continue
  [ -n "$line" ] || continue
  for driver in $(tr ' ' '\n' <<<"${line#*:}" | tac) "${line%%:*}"; do
    plain=$(basename "$driver"); plain=${plain%.xz}; plain=${plain%.zst}; plain=${plain%.gz}
    [ ! -e "$tree/lib/drivers/$plain" ] || continue
    case $driver in
      *.xz) xz -dc "$release/$driver";; *.zst) zstd -dqc "$release/$driver";; *.gz) gzip -dc "$release/$driver";;
      *) cat "$release/$driver";;
    esac > "$tree/lib/drivers/$plain"
    echo "$plain" >> "$tree/lib/drivers/order"
  done
done

install -m 755 "$here/files/first" "$tree/init"
install -m 755 "$here/files/boot" "$tree/etc/boot"
install -m 755 "$here/files/grow" "$tree/sbin/grow"
install -m 755 "$here/files/lease" "$tree/usr/share/udhcpc/default.script"
install -m 755 "$here/files/power" "$tree/etc/acpi/PWRF/00000080"
ln -s /usr/share/udhcpc/default.script "$tree/etc/udhcpc/default.script"
printf '%s\n' '::sysinit:/etc/boot' 'ttyS0::respawn:-/bin/sh' 'tty1::respawn:-/bin/sh' '::ctrlaltdel:/bin/reboot' \
  '::shutdown:/bin/umount -a -r' > "$tree/etc/inittab"
echo 'root:x:0:0:root:/root:/bin/sh' > "$tree/etc/passwd"; echo 'root:x:0:' > "$tree/etc/group"
echo 'root:*:19000:0:99999:7:::' > "$tree/etc/shadow"; chmod 600 "$tree/etc/shadow"
echo /bin/sh > "$tree/etc/shells"; echo tiny > "$tree/etc/hostname"; echo '127.0.0.1 localhost' > "$tree/etc/hosts"
echo 'passwd: files' > "$tree/etc/nsswitch.conf"
printf '%s\n' 'export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root' "PS1='\\h:\\w# '" > "$tree/etc/profile"

echo "* packing kernel, ramdisk and root disk"
cp "$image" "$work/vmlinuz"
(cd "$tree" && find . | sort | cpio -o -H newc -R 0:0 --quiet | gzip -6) > "$work/initrd.gz"
cp -a "$tree" "$work/root"; rm -rf "$work/root/lib/drivers" "$work/root/init"
truncate -s "${root_mb}M" "$work/root.img"
mke2fs -q -t ext4 -O '^metadata_csum,^64bit' -L tinyroot -E root_owner=0:0 -d "$work/root" "$work/root.img"
qemu-img convert -c -f raw -O qcow2 "$work/root.img" "$work/root.qcow2"

echo "* packing the disk that boots by itself"
disk=$work/disk.img; boot=$work/boot.img
truncate -s "$((1 + boot_mb + root_mb))M" "$disk"; truncate -s "${boot_mb}M" "$boot"
sfdisk -q "$disk" <<X
label: dos
start=2048, size=$((boot_mb * 2048)), type=e, bootable
start=$((2048 + boot_mb * 2048)), type=83
X
dd if="$mbr" of="$disk" conv=notrunc bs=440 count=1 status=none
mformat -i "$boot" -T $((boot_mb * 2048)) -h 255 -s 63 -H 2048 -v BOOT ::
cat > "$work/syslinux.cfg" <<X
DEFAULT tiny
PROMPT 0
TIMEOUT 0
LABEL tiny
  KERNEL vmlinuz
  INITRD initrd.gz
  APPEND root=LABEL=tinyroot console=tty0 console=ttyS0,115200 quiet random.trust_cpu=on no_timer_check mitigations=off net.ifnames=0
X
mcopy -i "$boot" "$work/vmlinuz" ::vmlinuz; mcopy -i "$boot" "$work/initrd.gz" ::initrd.gz
mcopy -i "$boot" "$work/syslinux.cfg" ::syslinux.cfg
syslinux --install "$boot"
dd if="$boot" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$work/root.img" of="$disk" bs=1M seek=$((1 + boot_mb)) conv=notrunc,sparse status=none
qemu-img convert -c -f raw -O qcow2 "$disk" "$work/disk.qcow2"
for file in vmlinuz initrd.gz root.qcow2 disk.qcow2; do
  mv "$work/$file" "$out/.tiny-$file.new"; mv "$out/.tiny-$file.new" "$out/tiny-$file"
done
echo "* done"
