"""W&B, as the pipelines reach it."""

SWITCH = "WANDB_ENTITY"
"""The variable without which nothing is registered, watched or promoted."""
VARIABLES = {
    "WANDB_BASE_URL": "a server of your own",
    "WANDB_ORGANIZATION": "the organization, where the team has several",
}
"""Others, and what each is for."""
LOGINS = ({"WANDB_API_KEY"},)
"""The secrets of each way to log in."""
