// The command that told.test.ts and told.long.ts let be started at the end of each run.

/** Tells a file of the id what it hears; what it does besides depends on the id. */
export const LISTENER = `
case "$LONGRUN_ID" in
  *deaf) exit 0;;
  *fails) echo "no such user" >&2; exit 3;;
  *hangs) echo $$ > "$HEARD/$LONGRUN_ID.pid"; sleep 600;;
esac
cat > "$HEARD/$LONGRUN_ID.tmp"; echo "$TOKEN" >> "$HEARD/$LONGRUN_ID.tmp"; echo >> "$HEARD/$LONGRUN_ID.count"
mv "$HEARD/$LONGRUN_ID.tmp" "$HEARD/$LONGRUN_ID"`
