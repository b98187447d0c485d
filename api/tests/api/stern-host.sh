#!/bin/sh
# A plugin host of a release that takes no plugin.
echo '{"findings": [{"code": "unknown_import", "message": "it imports `acme:gpu`"}]}'
exit 3
