#!/bin/sh
[ -d node_modules/pg-cursor ] || npm install --silent --no-audit --no-fund pg@8 pg-cursor@2 >/dev/null 2>&1 || { echo "npm cannot install pg"; exit 1; }
node node.js
