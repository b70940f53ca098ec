"""A round of three clients, one of which is lost, computed from the documents alone: RFC 7748 (x25519), RFC 5869
(HKDF-SHA256), RFC 8439 (ChaCha20, Poly1305), Shamir's scheme over GF(2^8) by logarithms, and the seeds of plugin-api.
Python 3.9 or later, no packages: python3 reference.py > reference.json
"""
import hashlib, hmac, json, struct

U64 = (1 << 64) - 1

# ---- plugin-api's seeds: FNV-1a, SplitMix64
def mix(z):
    z = (z + 0x9E3779B97F4A7C15) & U64
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & U64
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & U64
    return z ^ z >> 31

def seed_of(seed, name):
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & U64
    return mix(seed ^ ((h << 32 | h >> 32) & U64))

def seed_at(seed, number):
    return mix((mix(seed) + number) & U64)

# ---- RFC 8439
def rotl(x, n):
    return (x << n | x >> 32 - n) & 0xFFFFFFFF

def chacha20_block(key, counter, nonce):
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8L", key), counter,
             *struct.unpack("<3L", nonce)]
    s = start[:]
    def quarter(a, b, c, d):
        s[a] = (s[a] + s[b]) & 0xFFFFFFFF; s[d] = rotl(s[d] ^ s[a], 16)
        s[c] = (s[c] + s[d]) & 0xFFFFFFFF; s[b] = rotl(s[b] ^ s[c], 12)
        s[a] = (s[a] + s[b]) & 0xFFFFFFFF; s[d] = rotl(s[d] ^ s[a], 8)
        s[c] = (s[c] + s[d]) & 0xFFFFFFFF; s[b] = rotl(s[b] ^ s[c], 7)
    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<16L", *((a + b) & 0xFFFFFFFF for a, b in zip(s, start)))

def stream(key, length, first=0):
    blocks = (length + 63) // 64
    return b"".join(chacha20_block(key, first + i, bytes(12)) for i in range(blocks))[:length]

def poly1305(key, message):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    a = 0
    for i in range(0, len(message), 16):
        a = (a + int.from_bytes(message[i:i + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    return ((a + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")

def seal(key, plain):
    sealed = bytes(a ^ b for a, b in zip(plain, stream(key, len(plain), 1)))
    padded = sealed + bytes(-len(sealed) % 16) + struct.pack("<QQ", 0, len(sealed))
    return sealed + poly1305(stream(key, 32), padded)

# ---- RFC 5869, one block of output
def hkdf(material, info):
    extracted = hmac.digest(bytes(32), material, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")

# ---- RFC 7748
P = 2**255 - 19

def x25519(scalar, point):
    k = int.from_bytes(scalar, "little") & ~7 & ((1 << 255) - 1) | 1 << 254
    x1 = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3 = 1, 0, x1, 1
    for t in reversed(range(255)):
        if k >> t & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a % P, c * b % P
        new = pow(a * a - b * b, 1, P)
        x3, z3 = pow(da + cb, 2, P), x1 * pow(da - cb, 2, P) % P
        x2, z2 = a * a % P * (b * b % P) % P, new * (a * a + 121665 * new) % P
        if k >> t & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")

def public(secret):
    return x25519(secret, (9).to_bytes(32, "little"))

# The published vectors, so that this file stands on its own.
h = bytes.fromhex
assert x25519(h("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
              h("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")) == \
    h("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
assert chacha20_block(bytes(range(32)), 1, h("000000090000004a00000000"))[:8] == h("10f1e7e4d13b5915")
assert poly1305(h("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b"),
                b"Cryptographic Forum Research Group") == h("a8061dc1305136c6c22b8baf0c0127a9")
assert hmac.digest(b"key", b"The quick brown fox jumps over the lazy dog", "sha256").hex().startswith("f7bc83f4")

# ---- Shamir over GF(2^8) by logarithms to the base 3
EXP, x = [], 1
for _ in range(255):
    EXP.append(x)
    x ^= x << 1
    x ^= 0x11B if x & 0x100 else 0
LOG = {x: i for i, x in enumerate(EXP)}

def times(a, b):
    return EXP[(LOG[a] + LOG[b]) % 255] if a and b else 0

def power(a, n):
    return EXP[LOG[a] * n % 255]

def share(coefficients, x):
    total = bytearray(32)
    for n, coefficient in enumerate(coefficients):
        for i, a in enumerate(coefficient):
            total[i] ^= times(a, power(x, n))
    return bytes(total)

# ---- the round
SEED, ROUND, THRESHOLD, CLIP, BITS, NAMES = 42, 3, 2, 0.5, 20, ["a", "b", "c"]
LOST = 1
STEP = CLIP / 2 ** (BITS - 1)
UNIT = 2.0**-23  # so that all values are exact in f32 and in this file

# f32 and f64; the streams take them by name: head, w
base = {"w": [(i % 7 - 3) << 20 for i in range(70)], "head": [1 << 23, -2 << 23, 1 << 21, 0]}
# Some of them are halfway between two numbers of the grid, and some beyond the clip.
updates = [{name: [(i + 3) * (k + 5) * 7919 % 4001 - 2000 if i != 5 else (k - 1) * (3 << 21)
                   for i in range(len(values))] for name, values in base.items()} for k in range(3)]

class Client:
    def __init__(self, k):
        root = seed_of(seed_at(seed_of(SEED, NAMES[k]), ROUND), "secure")
        key = b"".join(seed_at(root, i).to_bytes(8, "little") for i in range(4))
        random = stream(key, 32 * (3 + 2 * (THRESHOLD - 1)))
        drawn = [random[i:i + 32] for i in range(0, len(random), 32)]
        self.c, self.s, self.b = drawn[:3]
        first, second = drawn[3:3 + THRESHOLD - 1], drawn[3 + THRESHOLD - 1:]
        self.of_b = [share([self.b, *first], x) for x in (1, 2, 3)]
        self.of_s = [share([self.s, *second], x) for x in (1, 2, 3)]

clients = [Client(k) for k in range(3)]

def sealed(u, v):
    if u == v:
        return bytes(80)
    a, b = clients[u], clients[v]
    key = hkdf(x25519(a.c, public(b.c)), b"fedplug secure shares" + public(a.c) + public(b.c))
    return seal(key, a.of_b[v] + a.of_s[v])

def mask_key(u, v):
    pair = sorted([public(clients[u].s), public(clients[v].s)])
    return hkdf(x25519(clients[u].s, public(clients[v].s)), b"fedplug secure mask" + b"".join(pair))

def encoded(k):
    values = [x * UNIT for name in sorted(base) for x in updates[k][name]]
    limit = 2 ** (BITS - 1)
    return [max(-limit, min(limit, round(x / STEP))) for x in values]

def masked(u):
    total = encoded(u)
    def add(key, sign):
        words = struct.unpack(f"<{len(total)}L", stream(key, 4 * len(total)))
        for i, word in enumerate(words):
            total[i] += sign * word
    add(clients[u].b, 1)
    for v in range(3):
        if v != u:
            add(mask_key(u, v), 1 if u < v else -1)
    return [(x + 2**31) % 2**32 - 2**31 for x in total]

stay = [k for k in range(3) if k != LOST]
mean = [sum(column) * STEP / len(stay) for column in zip(*(encoded(k) for k in stay))]
values = [x * UNIT for name in sorted(base) for x in base[name]]
result = [x + m for x, m in zip(values, mean)]
bits = [struct.unpack("<Q", struct.pack("<d", x))[0] for x in result[:4]] + \
       [struct.unpack("<L", struct.pack("<f", x))[0] for x in result[4:]]

print(json.dumps({
    "seed": SEED, "round": ROUND, "threshold": THRESHOLD, "clip": CLIP, "bits": BITS, "clients": NAMES, "lost": LOST,
    "base": base, "updates": updates,
    "keys": [(public(c.c) + public(c.s)).hex() for c in clients],
    "sealed": [b"".join(sealed(u, v) for v in range(3)).hex() for u in range(3)],
    "masked": [masked(u) for u in range(3)],
    "given": [b"".join(c.of_s[u] if v == LOST else c.of_b[u] for v, c in enumerate(clients)).hex() for u in range(3)],
    "result": bits,
}))
