#!/bin/sh
# Makes certificates for development with openssl: an authority (ca.pem, ca.key) and a server's pair
# (server.pem, server.key) for localhost and the names and addresses given as arguments.
#
#   certs/make.sh                        # localhost, 127.0.0.1, ::1
#   certs/make.sh patgate.test 10.1.2.3  # these as well
#
# They land beside this script, or in $CERTS. An authority that is there is used again, so that what
# clients trust stays the same; the server's pair is made anew.
set -eu
umask 077
cd "${CERTS:-$(dirname "$0")}"

names='DNS:localhost,IP:127.0.0.1,IP:::1'
for name in "$@"; do
    case $name in
        *[!A-Za-z0-9.:*-]*) echo "make.sh: '$name' is neither a host name nor an address" >&2; exit 64 ;;
        *:*) names="$names,IP:$name" ;;
        *[!0-9.]*) names="$names,DNS:$name" ;;
        *) names="$names,IP:$name" ;;
    esac
done

if ! [ -f ca.pem ] || ! [ -f ca.key ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -sha256 -days 3650 \
        -keyout ca.key -out ca.pem -subj '/CN=patgate development' \
        -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' 2>/dev/null
fi

openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -sha256 \
    -keyout server.key.new -out server.csr -subj '/CN=localhost' 2>/dev/null
openssl x509 -req -sha256 -days 825 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
    -out server.pem.new -extfile /dev/stdin 2>/dev/null <<EXTENSIONS
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = $names
authorityKeyIdentifier = keyid
subjectKeyIdentifier = hash
EXTENSIONS
rm -f server.csr
mv server.key.new server.key
mv server.pem.new server.pem
openssl verify -CAfile ca.pem server.pem >/dev/null
echo "$(pwd): server.pem and server.key for $names; clients trust ca.pem"
