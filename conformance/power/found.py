"""What was found, over all cuts."""

from dataclasses import dataclass, field


@dataclass
class Found:
    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: list = field(default_factory=list)

    def is_whole(self):
        return self.lost == 0 and not self.wrong

    def add(self, acknowledged, lost, wrong):
        """Counts what one start has shown, and prints what is wrong."""
        self.acknowledged += acknowledged
        self.lost += lost
        self.wrong += wrong
        print(f"{acknowledged} acknowledged; so far {self}", flush=True)
        for line in wrong[:5]:
            print(f"    {line}", flush=True)

    def __str__(self):
        wrong = f", and {len(self.wrong)} things were wrong" if self.wrong else ""
        return f"{self.cuts} cuts, {self.acknowledged} messages acknowledged, {self.lost} lost{wrong}"
