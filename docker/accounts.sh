#!/bin/sh
# Brings the database's schemas, accounts and privileges into their defined state from any other: the statements that the
# embedded server gets from devstack/servers/mariadb.py, for clients in other containers.
#
# The image runs it once, while it fills an empty volume. After a password in .env was changed, run it again:
#   docker-compose up -d mariadb && docker-compose exec mariadb sh /docker-entrypoint-initdb.d/accounts.sh
# Passwords come from the environment and go to standard input, so that no list of processes shows them.

# In a subshell, because the image sources the file where it has lost its executable bit.
(
    set -eu

    # echo would interpret backslashes.
    print_line() {
        printf '%s\n' "$1"
    }

    literal() {
        printf "'%s'" "$(printf '%s' "$1" | sed "s/\\\\/\\\\\\\\/g; s/'/''/g")"
    }

    # account NAME PASSWORD RIGHTS
    account() {
        who="'${TIDEMILL_DB_CONTROL}_$1'@'%'"
        password=$(literal "$2")
        print_line "CREATE USER IF NOT EXISTS $who IDENTIFIED BY $password;"
        print_line "ALTER USER $who IDENTIFIED BY $password;"
        print_line "REVOKE ALL PRIVILEGES, GRANT OPTION FROM $who;"
        for schema in "$TIDEMILL_DB_CONTROL" "$TIDEMILL_DB_DATA"; do
            print_line "GRANT $3 ON \`$schema\`.* TO $who;"
        done
    }

    statements() {
        print_line "DELETE FROM mysql.global_priv WHERE User = '';"
        print_line "FLUSH PRIVILEGES;"
        for schema in "$TIDEMILL_DB_CONTROL" "$TIDEMILL_DB_DATA"; do
            print_line "CREATE DATABASE IF NOT EXISTS \`$schema\` CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;"
        done
        account migrate "$TIDEMILL_DB_MIGRATE_PASSWORD" "ALL PRIVILEGES"
        account stream "$TIDEMILL_DB_STREAM_PASSWORD" "SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES"
        account read "$TIDEMILL_DB_READ_PASSWORD" "SELECT, SHOW VIEW"
    }

    # Made whole before anything is run: a missing variable ends the script here.
    sql=$(statements)
    print_line "$sql" | MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb --skip-ssl --protocol=socket --user=root
)
