#!/bin/sh
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
javac -d "$dir" Jdbc.java && java -cp "$dir:/usr/share/java/postgresql.jar" Jdbc 2>&1
