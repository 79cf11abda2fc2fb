"""The receipts that this site has checked and signed, one for each attempt at a round."""

from sqlite3 import Connection

from wardround.client.store.database import explained
from wardround.protocol.receipt import Receipt, parse_receipt


class Receipts:
    """``store`` is from ``open_store``."""

    def __init__(self, store: Connection) -> None:
        self._store = store

    def keep(self, receipt: Receipt) -> None:
        """Write down a receipt, with all its signatures; it takes the place of the same one with fewer."""
        row = (receipt.plan, receipt.round_number, receipt.attempt, receipt.canonical)
        with explained("the site's receipts"):
            self._store.execute("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?, ?)", row)

    def get(self, plan: str, round_number: int, attempt: int) -> Receipt | None:
        with explained("the site's receipts"):
            row = self._store.execute(
                "SELECT content FROM receipts WHERE plan = ? AND round_number = ? AND attempt = ?",
                (plan, round_number, attempt),
            ).fetchone()
        return None if row is None else parse_receipt(bytes(row[0]))

    def closed(self, plan: str, round_number: int) -> Receipt | None:
        """The receipt of the attempt at a round that was closed, if this site holds it: no further one follows."""
        with explained("the site's receipts"):
            rows = self._store.execute(
                "SELECT content FROM receipts WHERE plan = ? AND round_number = ?", (plan, round_number)
            ).fetchall()
        found = (parse_receipt(bytes(content)) for (content,) in rows)
        return next((receipt for receipt in found if receipt.state == "closed"), None)

    def void_since_last_closed(self, plan: str) -> list[Receipt]:
        """The rounds that ended void after the last one that closed, in their order: a later round made others good."""
        found: list[Receipt] = []
        with explained("the site's receipts"):
            rows = self._store.execute(
                "SELECT content FROM receipts WHERE plan = ? ORDER BY round_number DESC, attempt DESC LIMIT 100",
                (plan,),
            )
            for (content,) in rows:
                receipt = parse_receipt(bytes(content))
                if receipt.state != "void":
                    break
                found.append(receipt)
        return found[::-1]

    def newest(self, plan: str, most: int = 1) -> list[Receipt]:
        """The last receipts of a study, the newest first."""
        with explained("the site's receipts"):
            rows = self._store.execute(
                "SELECT content FROM receipts WHERE plan = ? ORDER BY round_number DESC, attempt DESC LIMIT ?",
                (plan, most),
            ).fetchall()
        return [parse_receipt(bytes(content)) for (content,) in rows]

    def of(self, plan: str) -> list[Receipt]:
        """The receipts of a study in the order of its rounds."""
        with explained("the site's receipts"):
            rows = self._store.execute(
                "SELECT content FROM receipts WHERE plan = ? ORDER BY round_number, attempt", (plan,)
            ).fetchall()
        return [parse_receipt(bytes(content)) for (content,) in rows]
