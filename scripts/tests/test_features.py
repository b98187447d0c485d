"""`cargo build` and `cargo test` must want the same features of every dependency.

Otherwise the tests compile wasmtime, sqlx and the rest a second time, which takes minutes. The usual
cause is a dev-dependency that switches on a feature of something that it shares with the product.
"""

import pathlib
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def features(edges):
    """Package -> its features, as the whole workspace wants them."""
    command = ["cargo", "tree", "--workspace", "--edges", edges, "--prefix", "none", "--format", "{p}|{f}"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = {}
    for package, _, wanted in (line.removesuffix(" (*)").partition("|") for line in lines):
        # A build dependency may have other features than the same package inside the product.
        found.setdefault(package, set()).add(wanted.strip())
    return found


class Features(unittest.TestCase):
    def test_tests_share_the_dependencies_of_the_product(self):
        product, tests = features("normal,build"), features("normal,build,dev")
        different = {p: (f, tests[p]) for p, f in product.items() if p in tests and tests[p] != f}
        self.assertEqual(different, {}, "package: (features for the product, features for the tests)")


if __name__ == "__main__":
    unittest.main()
