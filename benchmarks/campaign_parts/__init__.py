"""What `campaign.py` tries, a module a part: damaged inputs or a damaged machine, and a judgement of the end."""
